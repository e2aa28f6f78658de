// See image_preparer.h.
#include "data_pipeline/image_preparer.h"

#include <algorithm>

#include "data_pipeline/jpeg.h"
#include "data_pipeline/resize_area.h"

namespace nf::data {
namespace {
constexpr int64_t kLargePixels = int64_t{1} << 24;
}  // namespace

SampleFault ImagePreparer::prepare(std::vector<uint8_t>& bytes, int& width, int& height) {
  if (auto fault = probe_image(bytes, width, height, options_.limits); !fault.ok()) return fault;
  std::unique_lock<std::mutex> lock(large_, std::defer_lock);
  if (int64_t{width} * height > kLargePixels) lock.lock();
  if (options_.resize_short > 0 && std::min(width, height) > options_.resize_short)
    return reencode(bytes, width, height);
  return check_image(bytes, width, height, options_.limits);
}

SampleFault ImagePreparer::prepare_again(std::vector<uint8_t>& bytes) {
  if (options_.resize_short == 0) return {};
  int width = 0, height = 0;
  return prepare(bytes, width, height);
}

SampleFault ImagePreparer::reencode(std::vector<uint8_t>& bytes, int& width, int& height) const {
  Image image, small;
  if (auto fault = decode_image(bytes, image, options_.limits); !fault.ok()) return fault;
  width = image.width;
  height = image.height;
  size_with_short_side(options_.resize_short, width, height);
  resize_area(image, width, height, small);
  bytes = encode_jpeg(small, options_.quality);
  return {};
}

}  // namespace nf::data

// See image_preparer.h.
#include "data_pipeline/image_preparer.h"

#include <algorithm>

#include "data_pipeline/image_header.h"
#include "data_pipeline/jpeg.h"
#include "data_pipeline/jpeg_layout.h"
#include "data_pipeline/jpeg_markers.h"
#include "data_pipeline/jpeg_scan.h"
#include "data_pipeline/resize_area.h"

namespace nf::data {
namespace {

constexpr int64_t kLargePixels = int64_t{1} << 24;
constexpr int64_t kTranscodedPixels = int64_t{1} << 25;  // larger ones stay: memory

bool is_jpeg(std::span<const uint8_t> bytes) {
  SampleFault unknown;
  return sniff_format(bytes, unknown) == ImageFormat::kJpeg;
}

// A file that stays as it is may bring an index of its own; readers will trust it.
SampleFault check_index(std::span<const uint8_t> bytes) {
  JpegLayout layout;
  JpegScan scan;
  if (!read_jpeg_layout(bytes, layout) || layout.segment_index.empty()) return {};
  if (scan.open(bytes, layout) && scan.index_is_right()) return {};
  return {"JPEG: its segment index is wrong"};
}

}  // namespace

SampleFault ImagePreparer::prepare(std::vector<uint8_t>& bytes, int& width, int& height) {
  if (auto fault = probe_image(bytes, width, height, options_.limits); !fault.ok()) return fault;
  std::unique_lock<std::mutex> lock(large_, std::defer_lock);
  if (int64_t{width} * height > kLargePixels) lock.lock();
  if (options_.resize_short > 0 && std::min(width, height) > options_.resize_short) {
    if (auto fault = reencode(bytes, width, height); !fault.ok()) return fault;
  }
  if (options_.headers_only) return check_headers(bytes);
  if (!is_jpeg(bytes)) return check_image(bytes, width, height, options_.limits);
  return check_and_transcode(bytes, width, height);
}

SampleFault ImagePreparer::prepare_again(std::vector<uint8_t>& bytes) {
  int width = 0, height = 0;
  if (options_.resize_short > 0) return prepare(bytes, width, height);
  if (!options_.transcode || !is_jpeg(bytes)) return {};
  if (auto fault = probe_image(bytes, width, height, options_.limits); !fault.ok()) return fault;
  if (int64_t{width} * height > kTranscodedPixels) return {};
  std::unique_lock<std::mutex> lock(large_, std::defer_lock);
  if (int64_t{width} * height > kLargePixels) lock.lock();
  auto transcoder = take_transcoder();
  std::vector<uint8_t> stored;
  if ((transcoder->read_plain(bytes) || transcoder->read_any(bytes)) &&
      transcoder->write(bytes.size(), {}, stored))
    bytes.swap(stored);
  if (!lock.owns_lock()) give_back(std::move(transcoder));
  return {};
}

// Of a file whose size was read before.
SampleFault ImagePreparer::check_headers(std::span<const uint8_t> bytes) const {
  if (!is_jpeg(bytes)) return {};
  SampleFault fault = check_jpeg_markers(bytes, options_.limits);
  return fault.ok() ? check_index(bytes) : fault;
}

// The same decisions as above. Reading a plain file proves that libjpeg-turbo would decode it
// without a warning; any other is decoded.
SampleFault ImagePreparer::check_and_transcode(std::vector<uint8_t>& bytes, int& width,
                                               int& height) {
  const int64_t pixels = int64_t{width} * height;
  if (pixels > kTranscodedPixels) {
    SampleFault fault = check_image(bytes, width, height, options_.limits);
    return fault.ok() ? check_index(bytes) : fault;
  }
  auto transcoder = take_transcoder();
  const bool plain =
      options_.transcode ? transcoder->read_plain(bytes) : transcoder->check_plain(bytes);
  if (!plain) {
    if (auto fault = check_image(bytes, width, height, options_.limits); !fault.ok()) return fault;
  }
  std::vector<uint8_t> stored;
  const bool stored_anew = options_.transcode && (plain || transcoder->read_any(bytes)) &&
                           transcoder->write(bytes.size(), {}, stored);
  if (pixels <= kLargePixels) give_back(std::move(transcoder));
  if (!stored_anew) return check_index(bytes);
  bytes.swap(stored);
  return {};
}

std::unique_ptr<JpegTranscoder> ImagePreparer::take_transcoder() {
  const std::lock_guard lock(spare_mutex_);
  if (spare_.empty()) return std::make_unique<JpegTranscoder>();
  auto transcoder = std::move(spare_.back());
  spare_.pop_back();
  return transcoder;
}

void ImagePreparer::give_back(std::unique_ptr<JpegTranscoder> transcoder) {
  const std::lock_guard lock(spare_mutex_);
  spare_.push_back(std::move(transcoder));
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

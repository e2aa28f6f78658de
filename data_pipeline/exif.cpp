// See exif.h.
#include "data_pipeline/exif.h"

#include <cstring>
#include <utility>
#include <vector>

#include "core/check.h"

namespace nf::data {
namespace {

constexpr uint16_t kOrientationTag = 0x0112;
constexpr uint16_t kShort = 3, kLong = 4;

struct TiffView {
  std::span<const uint8_t> bytes;
  bool big_endian;

  bool holds(uint64_t at, uint64_t size) const {
    return at <= bytes.size() && size <= bytes.size() - at;
  }
  uint16_t u16(uint64_t at) const {
    const int a = bytes[at], b = bytes[at + 1];
    return static_cast<uint16_t>(big_endian ? a << 8 | b : b << 8 | a);
  }
  uint32_t u32(uint64_t at) const {
    const uint32_t a = u16(at), b = u16(at + 2);
    return big_endian ? a << 16 | b : b << 16 | a;
  }
};

}  // namespace

int exif_orientation(std::span<const uint8_t> tiff) {
  if (tiff.size() < 8) return 1;
  const bool little = tiff[0] == 'I' && tiff[1] == 'I';
  const bool big = tiff[0] == 'M' && tiff[1] == 'M';
  if (!little && !big) return 1;
  const TiffView view{tiff, big};
  if (view.u16(2) != 42) return 1;
  const uint64_t ifd = view.u32(4);
  if (!view.holds(ifd, 2)) return 1;
  const uint64_t entries = view.u16(ifd);
  for (uint64_t i = 0; i < entries; ++i) {
    const uint64_t at = ifd + 2 + 12 * i;
    if (!view.holds(at, 12)) return 1;
    if (view.u16(at) != kOrientationTag) continue;
    const uint16_t type = view.u16(at + 2);
    if (type != kShort && type != kLong) return 1;
    const uint32_t value = type == kShort ? view.u16(at + 8) : view.u32(at + 8);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

Box stored_box(int orientation, int64_t width, int64_t height, const Box& upright) {
  Box box = upright;
  if (swaps_sides(orientation)) {
    std::swap(box.x, box.y);
    std::swap(box.width, box.height);
  }
  const bool mirror_x =
      orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool mirror_y =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  if (mirror_x) box.x = width - box.x - box.width;
  if (mirror_y) box.y = height - box.y - box.height;
  return box;
}

void apply_orientation(int orientation, Image& image) {
  NF_CHECK(orientation >= 1 && orientation <= 8);
  if (orientation == 1) return;
  const int64_t w = image.width, h = image.height;
  // The source index is origin + x * step_x + y * step_y for each upright pixel (x, y).
  int64_t origin = 0, step_x = 1, step_y = w;
  switch (orientation) {
    case 2:
      origin = w - 1, step_x = -1, step_y = w;
      break;
    case 3:
      origin = w * h - 1, step_x = -1, step_y = -w;
      break;
    case 4:
      origin = w * (h - 1), step_x = 1, step_y = -w;
      break;
    case 5:
      origin = 0, step_x = w, step_y = 1;
      break;
    case 6:
      origin = w * (h - 1), step_x = -w, step_y = 1;
      break;
    case 7:
      origin = w * h - 1, step_x = -w, step_y = -1;
      break;
    default:
      origin = w - 1, step_x = w, step_y = -1;
      break;  // 8
  }
  const int64_t out_w = swaps_sides(orientation) ? h : w, out_h = swaps_sides(orientation) ? w : h;
  std::vector<uint8_t> upright(image.rgb.size());
  uint8_t* to = upright.data();
  for (int64_t y = 0; y < out_h; ++y) {
    for (int64_t x = 0; x < out_w; ++x, to += 3) {
      std::memcpy(to, image.rgb.data() + 3 * (origin + x * step_x + y * step_y), 3);
    }
  }
  image.rgb.swap(upright);
  image.width = static_cast<int>(out_w);
  image.height = static_cast<int>(out_h);
}

}  // namespace nf::data

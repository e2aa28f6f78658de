// read_tiff_header of image_header.h: a bounded reader of the first image directory. Only the plain
// kinds are let through to the decoder (gray, RGB, palette, YCbCr; 1 to 16 bits; one page upright),
// and only when every strip or tile lies inside the file: libtiff would fill what is missing with
// zeros.
#include <algorithm>
#include <array>
#include <string>

#include "data_pipeline/image_header.h"

namespace nf::data {
namespace {

struct Directory {
  std::span<const uint8_t> bytes;
  bool big_endian = false;
  uint64_t begin = 0, entries = 0;

  bool holds(uint64_t at, uint64_t size) const {
    return at <= bytes.size() && size <= bytes.size() - at;
  }
  uint32_t u16(uint64_t at) const {
    return big_endian ? uint32_t{bytes[at]} << 8 | bytes[at + 1]
                      : uint32_t{bytes[at + 1]} << 8 | bytes[at];
  }
  uint32_t u32(uint64_t at) const {
    return big_endian ? u16(at) << 16 | u16(at + 2) : u16(at + 2) << 16 | u16(at);
  }
};

// The values of a tag of type SHORT or LONG, without copying them.
struct Values {
  const Directory* directory = nullptr;
  uint64_t at = 0, count = 0, size = 0;
  uint32_t operator[](uint64_t i) const {
    return size == 2 ? directory->u16(at + 2 * i) : directory->u32(at + 4 * i);
  }
};

Values find_tag(const Directory& d, uint32_t tag) {
  for (uint64_t i = 0; i < d.entries; ++i) {
    const uint64_t at = d.begin + 12 * i;
    if (d.u16(at) != tag) continue;
    const uint32_t type = d.u16(at + 2);
    if (type != 3 && type != 4) return {};
    Values v{&d, at + 8, d.u32(at + 4), type == 3 ? 2U : 4U};
    if (v.count * v.size > 4) v.at = d.u32(at + 8);
    return d.holds(v.at, v.count * v.size) ? v : Values{};
  }
  return {};
}

uint32_t value_of(const Directory& d, uint32_t tag, uint32_t absent) {
  const Values v = find_tag(d, tag);
  return v.count == 0 ? absent : v[0];
}

SampleFault check_segments(const Directory& d, uint32_t offsets_tag, uint32_t sizes_tag) {
  const Values offsets = find_tag(d, offsets_tag), sizes = find_tag(d, sizes_tag);
  if (offsets.count == 0 || offsets.count != sizes.count) return {"TIFF: no image data"};
  for (uint64_t i = 0; i < offsets.count; ++i) {
    if (!d.holds(offsets[i], sizes[i])) return {"TIFF: truncated"};
  }
  return {};
}

SampleFault check_kind(const Directory& d) {
  const uint32_t bits = value_of(d, 258, 1), samples = value_of(d, 277, 1);
  const uint32_t photometric = value_of(d, 262, 0xFFFF), compression = value_of(d, 259, 1);
  constexpr std::array<uint32_t, 6> kCompressions = {1, 5, 7, 8, 32773, 32946};
  if (std::find(kCompressions.begin(), kCompressions.end(), compression) == kCompressions.end()) {
    return {"TIFF: compression " + std::to_string(compression) + " is not supported"};
  }
  if ((bits != 1 && bits != 4 && bits != 8 && bits != 16) || samples < 1 || samples > 4 ||
      value_of(d, 339, 1) != 1) {
    return {"TIFF: kind of samples is not supported"};
  }
  const bool plain = photometric == 1 || photometric == 2;
  const bool byte_kinds = photometric == 0 || photometric == 3 || photometric == 6;
  if (!plain && !(byte_kinds && bits <= 8)) return {"TIFF: colour space is not supported"};
  if (value_of(d, 274, 1) != 1) return {"TIFF: only upright images are supported"};
  return {};
}

}  // namespace

SampleFault read_tiff_header(std::span<const uint8_t> bytes, ImageHeader& header) {
  Directory d{bytes, bytes[0] == 'M'};
  if (!d.holds(0, 8) || !d.holds(d.u32(4), 2)) return {"TIFF: truncated"};
  d.begin = uint64_t{d.u32(4)} + 2;
  d.entries = d.u16(d.u32(4));
  if (!d.holds(d.begin, 12 * d.entries)) return {"TIFF: truncated"};
  header.width = value_of(d, 256, 0);
  header.height = value_of(d, 257, 0);
  header.decoder_bytes = 16;  // 4 channels of 16 bits, and as much again for a strip
  if (auto fault = check_kind(d); !fault.ok()) return fault;
  const uint64_t tile_width = value_of(d, 322, 0), tile_height = value_of(d, 323, 0);
  if (tile_width == 0) return check_segments(d, 273, 279);
  constexpr uint64_t kMaxTilePixels = 1 << 24;
  if (tile_width > kMaxTilePixels || tile_height == 0 ||
      tile_height > kMaxTilePixels / tile_width) {
    return {"TIFF: tile size"};
  }
  return check_segments(d, 324, 325);
}

}  // namespace nf::data

// See jpeg_layout.h. Markers: ITU-T T.81, annex B.
#include "data_pipeline/jpeg_layout.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "data_pipeline/exif.h"

namespace nf::data {
namespace {

constexpr int kMaxBlocksInMcu = 10;
constexpr int64_t kMaxSide = 65500;  // libjpeg's own limit

using Span = std::span<const uint8_t>;

bool begins_with(Span payload, std::string_view text) {
  return payload.size() >= text.size() &&
         std::memcmp(payload.data(), text.data(), text.size()) == 0;
}

bool read_quant(Span payload, JpegLayout& layout) {
  while (!payload.empty()) {
    const int wide = payload[0] >> 4, number = payload[0] & 15;
    const size_t size = wide != 0 ? 128 : 64;
    if (wide > 1 || number > 3 || payload.size() < 1 + size) return false;
    QuantTable& table = layout.quant[static_cast<size_t>(number)];
    for (size_t k = 0; k < 64; ++k) {
      const uint8_t* p = payload.data() + 1 + (wide != 0 ? 2 * k : k);
      table.value[k] = static_cast<uint16_t>(wide != 0 ? p[0] << 8 | p[1] : p[0]);
    }
    table.defined = true;
    payload = payload.subspan(1 + size);
  }
  return true;
}

bool read_huffman(Span payload, JpegLayout& layout) {
  while (!payload.empty()) {
    const int kind = payload[0] >> 4, number = payload[0] & 15;
    if (kind > 1 || number > 3 || payload.size() < 17) return false;
    auto& table = (kind == 0 ? layout.dc : layout.ac)[static_cast<size_t>(number)];
    table = {};
    for (size_t n = 1; n <= 16; ++n) {
      table.count[n] = payload[n];
      table.symbols += payload[n];
    }
    const auto symbols = static_cast<size_t>(table.symbols);
    if (symbols == 0 || symbols > 256 || payload.size() < 17 + symbols) return false;
    std::copy_n(payload.begin() + 17, symbols, table.symbol.begin());
    payload = payload.subspan(17 + symbols);
  }
  return true;
}

bool read_frame(Span payload, JpegFrame& frame) {
  if (frame.components != 0 || payload.size() < 6 || payload[0] != 8) return false;
  frame.height = payload[1] << 8 | payload[2];
  frame.width = payload[3] << 8 | payload[4];
  frame.components = payload[5];
  if (frame.components != 1 && frame.components != 3) return false;
  if (payload.size() != size_t{6} + 3 * static_cast<size_t>(frame.components)) return false;
  for (size_t i = 0; i < static_cast<size_t>(frame.components); ++i) {
    const uint8_t* p = payload.data() + 6 + 3 * i;
    JpegComponent& c = frame.component[i];
    c.id = p[0];
    c.h = p[1] >> 4;
    c.v = p[1] & 15;
    c.quant = p[2];
    if (c.quant > 3) return false;
    for (size_t k = 0; k < i; ++k) {
      if (frame.component[k].id == c.id) return false;
    }
  }
  return frame.set_grid();
}

bool read_scan(Span payload, JpegLayout& layout) {
  JpegFrame& frame = layout.frame;
  const auto n = static_cast<size_t>(frame.components);
  if (n == 0 || payload.size() != 4 + 2 * n || payload[0] != n) return false;
  for (size_t i = 0; i < n; ++i) {
    JpegComponent& c = frame.component[i];
    c.dc = payload[2 + 2 * i] >> 4;
    c.ac = payload[2 + 2 * i] & 15;
    if (payload[1 + 2 * i] != c.id || c.dc > 3 || c.ac > 3 || layout.dc[c.dc].symbols == 0 ||
        layout.ac[c.ac].symbols == 0 || !layout.quant[c.quant].defined)
      return false;
  }
  const uint8_t* end = payload.data() + 1 + 2 * n;
  return end[0] == 0 && end[1] == 63 && end[2] == 0;
}

// One marker's segment.
bool read_marker(uint8_t marker, Span payload, JpegLayout& layout, bool& exif_seen) {
  switch (marker) {
    case 0xDB:
      return read_quant(payload, layout);
    case 0xC4:
      return read_huffman(payload, layout);
    case 0xC0:
    case 0xC1:
      return read_frame(payload, layout.frame);
    case 0xDD:
      if (payload.size() != 2) return false;
      layout.restart_interval = payload[0] << 8 | payload[1];
      return true;
    case 0xE0:
      if (payload.size() >= 14 && begins_with(payload, {"JFIF\0", 5})) layout.colour.jfif = true;
      return true;
    case 0xE1:
      if (!exif_seen && payload.size() > 6 && begins_with(payload, {"Exif\0\0", 6})) {
        exif_seen = true;
        layout.orientation = exif_orientation(payload.subspan(6));
      }
      return true;
    case 0xE9:
      if (payload.size() > kSegmentIndexName.size() &&
          std::equal(kSegmentIndexName.begin(), kSegmentIndexName.end(), payload.begin()))
        layout.segment_index = payload.subspan(kSegmentIndexName.size());
      return true;
    case 0xEE:
      if (payload.size() >= 12 && begins_with(payload, "Adobe")) {
        layout.colour.adobe = true;
        layout.colour.adobe_transform = payload[11];
      }
      return true;
    default:
      return marker >= 0xE0 && (marker <= 0xEF || marker == 0xFE);  // other APPn, comments
  }
}

}  // namespace

bool JpegFrame::set_grid() {
  if (width <= 0 || height <= 0 || width > kMaxSide || height > kMaxSide) return false;
  const auto n = static_cast<size_t>(components);
  int max_h = 1, max_v = 1;
  for (size_t i = 0; i < n; ++i) {
    if (component[i].h < 1 || component[i].h > 4 || component[i].v < 1 || component[i].v > 4)
      return false;
    max_h = std::max<int>(max_h, component[i].h);
    max_v = std::max<int>(max_v, component[i].v);
  }
  for (size_t i = 0; i < n; ++i) {  // libjpeg upsamples by whole factors only
    if (max_h % component[i].h != 0 || max_v % component[i].v != 0) return false;
  }
  blocks_in_mcu = 0;
  for (size_t i = 0; i < n; ++i) {
    // A scan of one component has MCUs of one block, whatever the factors.
    const int blocks = n == 1 ? 1 : component[i].h * component[i].v;
    if (blocks_in_mcu + blocks > kMaxBlocksInMcu) return false;
    for (int k = 0; k < blocks; ++k)
      component_of_block[static_cast<size_t>(blocks_in_mcu++)] = static_cast<uint8_t>(i);
  }
  mcu_width = n == 1 ? 8 : 8 * max_h;
  mcu_height = n == 1 ? 8 : 8 * max_v;
  mcus_per_row = (width + mcu_width - 1) / mcu_width;
  mcu_rows = (height + mcu_height - 1) / mcu_height;
  return true;
}

bool read_jpeg_layout(Span bytes, JpegLayout& layout) {
  layout = {};
  if (bytes.size() < 4 || bytes[0] != 0xFF || bytes[1] != 0xD8) return false;
  bool exif_seen = false;
  for (size_t at = 2;;) {
    if (at + 4 > bytes.size() || bytes[at] != 0xFF) return false;
    const uint8_t marker = bytes[at + 1];
    if (marker == 0xFF) {  // fill
      ++at;
      continue;
    }
    const size_t length = static_cast<size_t>(bytes[at + 2] << 8 | bytes[at + 3]);
    if (length < 2 || length > bytes.size() - at - 2) return false;
    const Span payload = bytes.subspan(at + 4, length - 2);
    at += 2 + length;
    if (marker == 0xDA) {
      layout.scan_begin = at;
      return read_scan(payload, layout);
    }
    if (!read_marker(marker, payload, layout, exif_seen)) return false;
  }
}

}  // namespace nf::data

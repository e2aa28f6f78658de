// See jpeg_writer.h. Markers: ITU-T T.81, annex B; JFIF 1.02; EXIF 2.3.
#include "data_pipeline/jpeg_writer.h"

#include <algorithm>

namespace nf::data {
namespace {

using Bytes = std::vector<uint8_t>;

void put(Bytes& out, std::initializer_list<int> values) {
  for (const int v : values) out.push_back(static_cast<uint8_t>(v));
}

void put_marker(Bytes& out, int marker, size_t payload) {
  const auto length = static_cast<int>(payload + 2);
  put(out, {0xFF, marker, length >> 8, length & 255});
}

void put_colour(Bytes& out, const ColourMarkers& colour) {
  if (colour.jfif) {
    put_marker(out, 0xE0, 14);
    put(out, {'J', 'F', 'I', 'F', 0, 1, 1, 0, 0, 1, 0, 1, 0, 0});
  }
  if (colour.adobe) {
    put_marker(out, 0xEE, 12);
    put(out, {'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, colour.adobe_transform});
  }
}

void put_orientation(Bytes& out, int orientation) {
  if (orientation == 1) return;
  put_marker(out, 0xE1, 32);
  put(out, {'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1});  // one entry:
  put(out, {0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0});
}

void put_quant(Bytes& out, const JpegHeader& header) {
  for (size_t t = 0; t < 4; ++t) {
    if (!header.quant[t].defined) continue;
    const auto& value = header.quant[t].value;
    const bool wide = std::any_of(value.begin(), value.end(), [](int v) { return v > 255; });
    put_marker(out, 0xDB, wide ? 129 : 65);
    put(out, {(wide ? 16 : 0) | static_cast<int>(t)});
    for (const uint16_t v : value) {
      if (wide) put(out, {v >> 8});
      put(out, {v & 255});
    }
  }
}

void put_frame(Bytes& out, const JpegHeader& header) {
  const JpegFrame& f = header.frame;
  bool baseline = true;
  for (const auto& table : header.quant)
    baseline &= std::all_of(table.value.begin(), table.value.end(), [](int v) { return v < 256; });
  const auto n = static_cast<size_t>(f.components);
  put_marker(out, baseline ? 0xC0 : 0xC1, 6 + 3 * n);
  put(out, {8, static_cast<int>(f.height >> 8), static_cast<int>(f.height & 255),
            static_cast<int>(f.width >> 8), static_cast<int>(f.width & 255), f.components});
  for (size_t i = 0; i < n; ++i) {
    const JpegComponent& c = f.component[i];
    // One component's factors say nothing; 1 x 1 keeps its grid simple for every reader.
    put(out, {c.id, n == 1 ? 0x11 : c.h << 4 | c.v, c.quant});
  }
}

void put_huffman(Bytes& out, int kind, size_t number, const HuffmanSpec& table) {
  if (table.symbols == 0) return;
  put_marker(out, 0xC4, 17 + static_cast<size_t>(table.symbols));
  put(out, {kind << 4 | static_cast<int>(number)});
  out.insert(out.end(), table.count.begin() + 1, table.count.end());
  out.insert(out.end(), table.symbol.begin(), table.symbol.begin() + table.symbols);
}

}  // namespace

void write_jpeg_header(const JpegHeader& header, Bytes& out) {
  out.clear();
  put(out, {0xFF, 0xD8});
  put_colour(out, header.colour);
  put_orientation(out, header.orientation);
  put_quant(out, header);
  put_frame(out, header);
  for (size_t t = 0; t < 2; ++t) {
    put_huffman(out, 0, t, header.dc[t]);
    put_huffman(out, 1, t, header.ac[t]);
  }
  if (header.restart_interval > 0) {
    put_marker(out, 0xDD, 2);
    put(out, {static_cast<int>(header.restart_interval >> 8),
              static_cast<int>(header.restart_interval & 255)});
  }
  if (!header.segment_index.empty()) {
    put_marker(out, 0xE9, kSegmentIndexName.size() + header.segment_index.size());
    out.insert(out.end(), kSegmentIndexName.begin(), kSegmentIndexName.end());
    out.insert(out.end(), header.segment_index.begin(), header.segment_index.end());
  }
  const auto n = static_cast<size_t>(header.frame.components);
  put_marker(out, 0xDA, 4 + 2 * n);
  put(out, {header.frame.components});
  for (size_t i = 0; i < n; ++i) {
    const JpegComponent& c = header.frame.component[i];
    put(out, {c.id, c.dc << 4 | c.ac});
  }
  put(out, {0, 63, 0});
}

int64_t segment_index_bytes(int64_t segments) {
  return 4 + static_cast<int64_t>(kSegmentIndexName.size()) + 2 * segments;
}

}  // namespace nf::data

// Markers of a sequential JPEG file, as few as its pixels need.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "data_pipeline/jpeg_layout.h"

namespace nf::data {

struct JpegHeader {
  JpegFrame frame;  // component[].dc and .ac: 0 or 1
  std::array<QuantTable, 4> quant;
  std::array<HuffmanSpec, 2> dc, ac;  // those with symbols are written
  ColourMarkers colour;
  int64_t restart_interval = 0;
  int orientation = 1;  // an EXIF block is written when it is not 1
  std::span<const uint8_t> segment_index;
};

// Everything from the start of the file to the entropy-coded data replaces what `out` holds.
void write_jpeg_header(const JpegHeader& header, std::vector<uint8_t>& out);

// Bytes of an index of so many segments, marker and name included.
int64_t segment_index_bytes(int64_t segments);
inline constexpr int64_t kMaxIndexedSegments = 32'000;  // what fits in one marker

}  // namespace nf::data

// Where the parts of a plain JPEG lie: sequential, Huffman coded, 8 bits, gray or three components,
// one scan. Nearly every JPEG is of this kind; it can be decoded in parts and stored anew without
// loss. Everything else, and whatever looks odd, is left to libjpeg-turbo as a whole: the reader
// here says no when in doubt, never that a damaged file is sound.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace nf::data {

// A Huffman table as files hold it (ITU-T T.81, B.2.4.2).
struct HuffmanSpec {
  std::array<uint8_t, 17> count{};    // count[n]: codes of n bits; count[0] unused
  std::array<uint8_t, 256> symbol{};  // in order of their codes
  int symbols = 0;                    // 0: the table is not defined

  bool operator==(const HuffmanSpec&) const = default;
};

struct JpegComponent {
  uint8_t id = 0, h = 1, v = 1, quant = 0, dc = 0, ac = 0;  // sampling factors, numbers of tables
};

struct QuantTable {
  std::array<uint16_t, 64> value{};  // in zigzag order
  bool defined = false;

  bool operator==(const QuantTable&) const = default;
};

// What the colours of a file depend on besides its components.
struct ColourMarkers {
  bool jfif = false, adobe = false;
  uint8_t adobe_transform = 0;
};

// The frame, and the grid of its MCUs (the units that entropy-coded data are made of).
struct JpegFrame {
  int64_t width = 0, height = 0;  // as stored, before EXIF orientation
  int components = 0;             // 1 or 3
  std::array<JpegComponent, 3> component;
  int64_t mcu_width = 0, mcu_height = 0;  // pixels
  int64_t mcus_per_row = 0, mcu_rows = 0;
  int blocks_in_mcu = 0;
  std::array<uint8_t, 10> component_of_block{};

  // Fills the grid; false when libjpeg would refuse such sampling factors.
  bool set_grid();
  int64_t mcus() const { return mcus_per_row * mcu_rows; }
};

struct JpegLayout {
  JpegFrame frame;
  std::array<QuantTable, 4> quant;
  std::array<HuffmanSpec, 4> dc, ac;
  ColourMarkers colour;
  int64_t restart_interval = 0;            // MCUs; 0: none
  int orientation = 1;                     // EXIF
  size_t scan_begin = 0;                   // first byte of entropy-coded data
  std::span<const uint8_t> segment_index;  // its bytes, empty without one (jpeg_transcode.h)
};

// Reads the markers of `bytes` up to the entropy-coded data. False: not a plain JPEG, or odd.
bool read_jpeg_layout(std::span<const uint8_t> bytes, JpegLayout& layout);

// An APP9 marker with this name holds the segment index.
inline constexpr std::array<uint8_t, 8> kSegmentIndexName = {'n', 'f', '-', 's', 'e', 'g', 's', 0};

}  // namespace nf::data

// An image's quantised coefficients as the symbols of a sequential JPEG, whatever file they came
// from, and how to write them.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "data_pipeline/huffman_code.h"
#include "data_pipeline/jpeg_writer.h"

namespace nf::data {

// Magnitude category and extra bits of a coefficient (T.81, F.1.2).
[[gnu::always_inline]] inline uint32_t category(int value) {
  return static_cast<uint32_t>(std::bit_width(static_cast<uint32_t>(std::abs(value))));
}
[[gnu::always_inline]] inline uint32_t extra_bits(int value, uint32_t size) {
  return static_cast<uint32_t>(value < 0 ? value + (1 << size) - 1 : value);
}

class JpegTokens {
 public:
  JpegFrame frame;
  std::array<QuantTable, 4> quant;
  ColourMarkers colour;
  int orientation = 1;

  void clear();
  // Room for one more MCU; call before its blocks.
  void reserve_mcu() {
    if (used_ + kMaxMcuTokens > tokens_.size()) tokens_.resize(2 * tokens_.size() + kMaxMcuTokens);
  }
  // False when the value is not one of 8-bit samples.
  [[gnu::always_inline]] bool begin_block(size_t component, int dc) {
    if (dc < -1024 || dc > 1023) return false;
    tokens_[used_++] = kBlock | static_cast<uint32_t>(component) << 16 | static_cast<uint16_t>(dc);
    counts_ = ac_counts_[component == 0 ? 0 : 1].data();
    return true;
  }
  // The interface of read_ac().
  [[gnu::always_inline]] void put(int, int run, int value) {
    const uint32_t size = category(value);
    add(static_cast<uint32_t>(run) << 4 | size, extra_bits(value, size));
  }
  [[gnu::always_inline]] void zeros() { add(0xF0, 0); }
  [[gnu::always_inline]] void end() { add(0, 0); }

  // Bytes of the file with this restart interval (0: none), about.
  int64_t estimate(int64_t interval) const;
  // The file. False when a segment does not fit into the index.
  bool write(int64_t interval, std::vector<uint8_t>& out) const;

 private:
  static constexpr uint32_t kBlock = uint32_t{1} << 31;
  static constexpr size_t kMaxMcuTokens = 10 * 66;

  [[gnu::always_inline]] void add(uint32_t symbol, uint32_t bits) {
    ++counts_[symbol];
    tokens_[used_++] = symbol << 16 | bits;
  }
  std::array<SymbolCounts, 2> dc_counts(int64_t interval) const;

  std::vector<uint32_t> tokens_;
  size_t used_ = 0;
  uint32_t* counts_ = nullptr;
  std::array<SymbolCounts, 2> ac_counts_{};  // of the first component, of the others
};

}  // namespace nf::data

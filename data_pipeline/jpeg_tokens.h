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
  // Without a branch: signs cannot be foreseen.
  return static_cast<uint32_t>(value + ((value >> 31) & ((1 << size) - 1)));
}

class JpegTokens {
 public:
  JpegFrame frame;
  std::array<QuantTable, 4> quant;
  ColourMarkers colour;
  int orientation = 1;

  // Writes blocks; has the interface that read_ac() wants. Everything in it stays in registers.
  struct Sink {
    uint32_t* next;
    uint32_t* counts;

    [[gnu::always_inline]] void put(int, int run, int value) {
      const uint32_t size = category(value);
      add(static_cast<uint32_t>(run) << 4 | size, extra_bits(value, size));
    }
    [[gnu::always_inline]] void zeros() { add(0xF0, 0); }
    [[gnu::always_inline]] void end() { add(0, 0); }

   private:
    [[gnu::always_inline]] void add(uint32_t symbol, uint32_t bits) {
      ++counts[symbol];
      *next++ = symbol << 16 | bits;
    }
  };

  void clear();
  // Room for one more MCU; call before its blocks.
  void reserve_mcu() {
    if (used_ + kMaxMcuTokens > tokens_.size()) tokens_.resize(2 * tokens_.size() + kMaxMcuTokens);
  }
  // A block of a component: between the two calls its AC coefficients go into the sink. False when
  // the DC value is not one of 8-bit samples.
  [[gnu::always_inline]] bool begin_block(size_t component, int dc, Sink& sink) {
    if (dc < -1024 || dc > 1023) return false;
    blocks_.push_back({static_cast<int16_t>(dc), static_cast<uint8_t>(component), 0});
    sink = {tokens_.data() + used_, ac_counts_[component == 0 ? 0 : 1].data()};
    return true;
  }
  [[gnu::always_inline]] void end_block(const Sink& sink) {
    const auto used = static_cast<size_t>(sink.next - tokens_.data());
    blocks_.back().tokens = static_cast<uint8_t>(used - used_);
    used_ = used;
  }

  // The file with this restart interval (0: none). False when it has more than `limit` bytes, or a
  // segment that does not fit into the index.
  bool write(int64_t interval, int64_t limit, std::vector<uint8_t>& out) const;

 private:
  static constexpr size_t kMaxMcuTokens = 10 * 66;

  struct Block {
    int16_t dc;
    uint8_t component;
    uint8_t tokens;  // of its AC coefficients
  };
  struct Tables;

  Tables make_tables(int64_t interval) const;
  int64_t estimate(int64_t interval, const Tables& tables) const;
  std::array<SymbolCounts, 2> dc_counts(int64_t interval) const;
  bool write_data(int64_t interval, const Tables& tables, std::vector<uint8_t>& index,
                  uint8_t*& to) const;
  bool write_data_bmi2(int64_t interval, const Tables& tables, std::vector<uint8_t>& index,
                       uint8_t*& to) const;
  template <class Unused>
  bool write_segments(int64_t interval, const Tables& tables, std::vector<uint8_t>& index,
                      uint8_t*& to) const;

  std::vector<uint32_t> tokens_;  // symbol << 16 | extra bits, of all blocks
  size_t used_ = 0;
  std::vector<Block> blocks_;
  std::array<SymbolCounts, 2> ac_counts_{};  // of the first component, of the others
};

}  // namespace nf::data

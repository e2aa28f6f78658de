// Decoding tables for the entropy-coded data of plain JPEGs, and the reader of single blocks. A
// look-up of kLook bits gives a whole coefficient (run, value and length) for nearly all that real
// files hold; longer ones take a second step.
//
// Nothing here warns or guesses: a code that does not exist, a coefficient beyond the 63rd, or a
// size that 8-bit images cannot have makes the reader say no, and libjpeg-turbo has the last word.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include "data_pipeline/jpeg_layout.h"

namespace nf::data {

inline constexpr int kLook = 11;

// Zigzag position to place in a block of 8 x 8.
extern const std::array<uint8_t, 64> kNaturalOrder;

// Codes longer than kLook bits, by comparison (T.81, figure F.15).
struct LongCodes {
  std::array<uint32_t, 17> limit{};  // first code of more than n bits, left-aligned in 16 bits
  std::array<int32_t, 17> offset{};
};

class HuffmanTable {
 public:
  // An entry: bits 0-5 bits to consume (as a shift takes them), 6-7 its kind, 8-11 run, 12-15 size,
  // 16-31 value.
  enum Kind : uint32_t { kValue = 0, kExtra = 1 << 6, kEnd = 2 << 6, kOther = 3 << 6 };
  static constexpr uint32_t kKindMask = 3 << 6, kSkipEnd = 1 << 7;

  // False when codes do not fit or symbols are not those of 8-bit sequential files.
  bool build(const HuffmanSpec& spec, bool dc);
  // Entries for skipping, each for as many coefficients as kLook bits hold: bits 0-5 bits to
  // consume, bit 7 end of block, bits 8-15 coefficients passed. 0: look into entry().
  void build_skips();

  [[gnu::always_inline]] uint32_t entry(uint64_t look) const { return entries_[look]; }
  [[gnu::always_inline]] uint32_t skip(uint64_t look) const { return skips_[look]; }
  // Code and symbol at the top of 16 bits; false: no such code.
  bool find_long(uint32_t bits16, int& length, uint8_t& symbol) const;

 private:
  HuffmanSpec spec_;
  bool dc_ = false, built_ = false, skips_built_ = false;
  LongCodes long_;
  std::array<uint32_t, 1 << kLook> entries_{}, skips_{};
};

// The next bits of unstuffed data stand at the top of `buffer`. At least kPadding bytes behind the
// data must be readable.
struct BitReader {
  static constexpr size_t kPadding = 4096;  // an MCU takes at most 2.1 KB, whatever it holds

  uint64_t buffer = 0;
  int count = 0;  // valid bits in buffer
  const uint8_t* next = nullptr;
  const uint8_t* begin = nullptr;
  const uint8_t* end = nullptr;

  void start(const uint8_t* from, const uint8_t* to) {
    buffer = 0;
    count = 0;
    next = begin = from;
    end = to;
  }
  [[gnu::always_inline]] void refill() {  // to at least 56 bits
    uint64_t word;
    std::memcpy(&word, next, 8);
    buffer |= __builtin_bswap64(word) >> count;
    next += (63 - count) >> 3;
    count |= 56;
  }
  [[gnu::always_inline]] uint64_t look() const { return buffer >> (64 - kLook); }
  [[gnu::always_inline]] uint32_t top(int bits) const {
    return static_cast<uint32_t>(buffer >> (64 - bits));
  }
  [[gnu::always_inline]] void consume(uint32_t bits) {
    buffer <<= bits;
    count -= static_cast<int>(bits);
  }
  // Bits not consumed yet; negative when more were consumed than there are.
  int64_t left() const { return 8 * static_cast<int64_t>(end - next) + count; }
};

// `size` bits as a signed number (T.81, figure F.12); 1 <= size <= 16.
[[gnu::always_inline]] inline int extend(uint32_t bits, int size) {
  const int value = static_cast<int>(bits);
  // Without a branch: signs cannot be foreseen.
  return value + (((value >> (size - 1)) - 1) & (1 - (1 << size)));
}

// The difference of a DC coefficient.
[[gnu::always_inline]] inline bool read_dc(BitReader& r, const HuffmanTable& table, int& value) {
  r.refill();
  const uint32_t e = table.entry(r.look());
  if ((e & HuffmanTable::kKindMask) == HuffmanTable::kValue) {
    r.consume(e & 63);
    value = static_cast<int32_t>(e) >> 16;
    return true;
  }
  int length = static_cast<int>(e & 31), size = static_cast<int>(e >> 12 & 15);
  if ((e & HuffmanTable::kKindMask) != HuffmanTable::kExtra) {
    uint8_t symbol;
    if (!table.find_long(r.top(16), length, symbol)) return false;
    size = symbol;
  }
  r.consume(static_cast<uint32_t>(length));
  value = 0;
  if (size == 0) return true;
  value = extend(r.top(size), size);
  r.consume(static_cast<uint32_t>(size));
  return true;
}

// The AC coefficients of a block. Calls sink.put(k, run, value) for each (k: zigzag position),
// sink.zeros() for a run of 16 and sink.end() for an end-of-block code.
template <class Sink>
[[gnu::always_inline]] inline bool read_ac(BitReader& r, const HuffmanTable& table, Sink& sink) {
  int k = 0;
  for (;;) {
    r.refill();
    uint32_t e = 0;
#pragma GCC unroll 4
    for (int step = 0; step < 4; ++step) {  // four look-ups take at most 44 of 56 bits
      e = table.entry(r.look());
      if ((e & HuffmanTable::kKindMask) != HuffmanTable::kValue) break;
      const int run = static_cast<int>(e >> 8 & 15);
      k += run + 1;
      r.consume(e & 63);
      if (__builtin_expect(k >= 63, 0)) {
        if (k > 63) return false;
        sink.put(k, run, static_cast<int32_t>(e) >> 16);
        return true;
      }
      sink.put(k, run, static_cast<int32_t>(e) >> 16);
    }
    if ((e & HuffmanTable::kKindMask) == HuffmanTable::kValue) continue;
    if ((e & HuffmanTable::kKindMask) == HuffmanTable::kEnd) {
      r.consume(e & 63);
      sink.end();
      return true;
    }
    r.refill();
    int length = static_cast<int>(e & 31), run = static_cast<int>(e >> 8 & 15),
        size = static_cast<int>(e >> 12 & 15);
    if ((e & HuffmanTable::kKindMask) == HuffmanTable::kOther) {
      uint8_t symbol;
      if (!table.find_long(r.top(16), length, symbol)) return false;
      run = symbol >> 4;
      size = symbol & 15;
    }
    r.consume(static_cast<uint32_t>(length));
    if (size == 0) {
      if (run == 0) {
        sink.end();
        return true;
      }
      k += 16;  // 0xF0; other runs without a value were refused with the table
      if (k > 62) return false;
      sink.zeros();
      continue;
    }
    k += run + 1;
    if (k > 63) return false;
    sink.put(k, run, extend(r.top(size), size));
    r.consume(static_cast<uint32_t>(size));
    if (k == 63) return true;
  }
}

// Passes over the AC coefficients of a block. Needs build_skips().
[[gnu::always_inline]] inline bool skip_ac(BitReader& r, const HuffmanTable& table) {
  int k = 0;
  for (;;) {
    r.refill();
#pragma GCC unroll 4
    for (int step = 0; step < 4; ++step) {
      const uint32_t s = table.skip(r.look());
      const int passed = static_cast<int>(s >> 8);
      if (__builtin_expect(s == 0 || k + passed >= 63, 0)) break;
      k += passed;
      r.consume(s & 63);
      if ((s & HuffmanTable::kSkipEnd) != 0) return true;
    }
    r.refill();
    // One code at a time: near the block's end, or longer than a look-up.
    const uint32_t e = table.entry(r.look());
    int length = static_cast<int>(e & 31), run = static_cast<int>(e >> 8 & 15),
        size = static_cast<int>(e >> 12 & 15);
    const uint32_t kind = e & HuffmanTable::kKindMask;
    if (kind == HuffmanTable::kValue) {
      size = 0;  // its bits are part of the length
    } else if (kind == HuffmanTable::kEnd) {
      r.consume(e & 63);
      return true;
    } else if (kind == HuffmanTable::kOther) {
      uint8_t symbol;
      if (!table.find_long(r.top(16), length, symbol)) return false;
      run = symbol >> 4;
      size = symbol & 15;
      if (symbol == 0) {
        r.consume(static_cast<uint32_t>(length));
        return true;
      }
      if (size == 0 && k + 16 > 62) return false;
    }
    k += run + 1;
    if (k > 63) return false;
    r.consume(static_cast<uint32_t>(length + size));
    if (k == 63) return true;
  }
}

}  // namespace nf::data

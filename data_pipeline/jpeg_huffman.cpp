// See jpeg_huffman.h.
#include "data_pipeline/jpeg_huffman.h"

namespace nf::data {

const std::array<uint8_t, 64> kNaturalOrder = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

namespace {

constexpr int kMaxDcSize = 11, kMaxAcSize = 10;  // of 8-bit samples (T.81, tables F.1 and F.2)

bool is_plain_symbol(uint8_t symbol, bool dc) {
  if (dc) return symbol <= kMaxDcSize;
  const int size = symbol & 15;
  return size == 0 ? symbol == 0 || symbol == 0xF0 : size <= kMaxAcSize;
}

// The entry for all look-ups that begin with this code.
uint32_t make_entry(uint32_t look, int length, uint8_t symbol, bool dc) {
  const auto len = static_cast<uint32_t>(length);
  const int size = dc ? symbol : symbol & 15;
  const uint32_t run = dc ? 0 : symbol >> 4;
  if (size == 0) {
    if (dc) return len;
    return symbol == 0 ? HuffmanTable::kEnd | len : HuffmanTable::kOther;
  }
  if (length + size > kLook)
    return HuffmanTable::kExtra | len | run << 8 | static_cast<uint32_t>(size) << 12;
  const uint32_t bits = look >> (kLook - length - size) & ((1U << size) - 1);
  return (len + static_cast<uint32_t>(size)) | run << 8 | static_cast<uint32_t>(size) << 12 |
         static_cast<uint32_t>(extend(bits, size)) << 16;
}

}  // namespace

bool HuffmanTable::build(const HuffmanSpec& spec, bool dc) {
  if (built_ && dc == dc_ && spec == spec_) return true;
  built_ = skips_built_ = false;
  spec_ = spec;
  dc_ = dc;
  entries_.fill(kOther);
  uint32_t code = 0;
  int index = 0;
  for (int length = 1; length <= 16; ++length) {
    const auto n = static_cast<size_t>(length);
    long_.offset[n] = index - static_cast<int32_t>(code);
    for (int i = 0; i < spec.count[n]; ++i, ++index, ++code) {
      const uint8_t symbol = spec.symbol[static_cast<size_t>(index)];
      if (!is_plain_symbol(symbol, dc)) return false;
      if (length > kLook) continue;
      const uint32_t first = code << (kLook - length);
      if (first + (1U << (kLook - length)) > 1U << kLook) return false;
      for (uint32_t look = first; look < first + (1U << (kLook - length)); ++look)
        entries_[look] = make_entry(look, length, symbol, dc);
    }
    if (code > (1U << length) - 1) return false;  // no code may be all ones
    long_.limit[n] = code << (16 - length);
    code <<= 1;
  }
  return built_ = true;
}

void HuffmanTable::build_skips() {
  if (skips_built_) return;
  constexpr uint32_t kMask = (1U << kLook) - 1;
  for (uint32_t look = 0; look <= kMask; ++look) {
    uint32_t used = 0, passed = 0, end = 0;
    while (used < kLook) {
      const uint32_t e = entries_[look << used & kMask];
      const uint32_t kind = e & kKindMask, length = e & 31;
      // What is behind the look-up's last bit is not known yet.
      if ((kind != kValue && kind != kEnd) || used + length > kLook) break;
      used += length;
      if (kind == kEnd) {
        end = kSkipEnd;
        break;
      }
      passed += (e >> 8 & 15) + 1;
    }
    skips_[look] = used | end | passed << 8;
  }
  skips_built_ = true;
}

bool HuffmanTable::find_long(uint32_t bits16, int& length, uint8_t& symbol) const {
  for (int n = 1; n <= 16; ++n) {
    const auto i = static_cast<size_t>(n);
    if (bits16 >= long_.limit[i]) continue;
    const int index = static_cast<int>(bits16 >> (16 - n)) + long_.offset[i];
    length = n;
    symbol = spec_.symbol[static_cast<size_t>(index)];
    return true;
  }
  return false;
}

}  // namespace nf::data

// See jpeg_tokens.h.
#include "data_pipeline/jpeg_tokens.h"

#include <algorithm>
#include <cstring>

namespace nf::data {
namespace {

// Codes of at most so many bits: what one look-up of our reader sees. Costs less than 0.1 % of
// size.
constexpr int kMaxCode = 11;

// Entropy-coded data, with a zero byte stuffed behind each 0xFF.
class BitWriter {
 public:
  explicit BitWriter(uint8_t* to) : to_(to) {}

  [[gnu::always_inline]] void put(uint32_t bits, uint32_t length) {  // at most 32
    buffer_ = buffer_ << length | bits;
    count_ += length;
    if (count_ >= 32) flush_word();
  }
  void finish_segment() {  // fills the last byte with ones
    const uint32_t rest = (8 - count_ % 8) % 8;
    buffer_ = buffer_ << rest | ((1U << rest) - 1);
    count_ += rest;
    while (count_ > 0) {
      count_ -= 8;
      put_byte(static_cast<uint8_t>(buffer_ >> count_));
    }
  }
  void put_marker(uint8_t marker) {
    *to_++ = 0xFF;
    *to_++ = marker;
  }
  uint8_t* position() const { return to_; }

 private:
  [[gnu::always_inline]] void flush_word() {
    count_ -= 32;
    const auto word = static_cast<uint32_t>(buffer_ >> count_);
    if ((word & 0x80808080U & ~(word + 0x01010101U)) == 0) {  // no byte is 0xFF (or it says so)
      const uint32_t big = __builtin_bswap32(word);
      std::memcpy(to_, &big, 4);
      to_ += 4;
      return;
    }
    for (int shift = 24; shift >= 0; shift -= 8) put_byte(static_cast<uint8_t>(word >> shift));
  }
  void put_byte(uint8_t byte) {
    *to_++ = byte;
    if (byte == 0xFF) *to_++ = 0;
  }

  uint8_t* to_;
  uint64_t buffer_ = 0;
  uint32_t count_ = 0;
};

uint64_t code_bits(const SymbolCounts& counts, const HuffmanCodes& codes, bool dc) {
  uint64_t bits = 0;
  for (size_t s = 0; s < 256; ++s)
    bits += uint64_t{counts[s]} * (codes.length[s] + (dc ? s : s & 15));
  return bits;
}

}  // namespace

void JpegTokens::clear() {
  used_ = 0;
  ac_counts_ = {};
  quant = {};
  colour = {};
  orientation = 1;
}

std::array<SymbolCounts, 2> JpegTokens::dc_counts(int64_t interval) const {
  std::array<SymbolCounts, 2> counts{};
  std::array<int, 3> last{};
  const int64_t blocks_in_segment = (interval > 0 ? interval : frame.mcus()) * frame.blocks_in_mcu;
  int64_t left = blocks_in_segment;
  for (size_t t = 0; t < used_; ++t) {
    if ((tokens_[t] & kBlock) == 0) continue;
    if (left == 0) {
      last = {};
      left = blocks_in_segment;
    }
    --left;
    const size_t c = tokens_[t] >> 16 & 3;
    const int dc = static_cast<int16_t>(tokens_[t]);
    ++counts[c == 0 ? 0 : 1][category(dc - last[c])];
    last[c] = dc;
  }
  return counts;
}

int64_t JpegTokens::estimate(int64_t interval) const {
  const auto dc = dc_counts(interval);
  uint64_t bits = 0;
  int64_t bytes = 0;
  for (size_t t = 0; t < (frame.components == 1 ? 1U : 2U); ++t) {
    const HuffmanSpec dc_spec = best_huffman_table(dc[t], kMaxCode);
    const HuffmanSpec ac_spec = best_huffman_table(ac_counts_[t], kMaxCode);
    bits += code_bits(dc[t], huffman_codes(dc_spec), true) +
            code_bits(ac_counts_[t], huffman_codes(ac_spec), false);
    bytes += 42 + dc_spec.symbols + ac_spec.symbols;
  }
  const int64_t segments = interval > 0 ? (frame.mcus() + interval - 1) / interval : 1;
  if (interval > 0) bytes += segment_index_bytes(segments) + 6 + segments * 5 / 2;
  bytes += static_cast<int64_t>(bits / 8 + bits / 8 / 300);
  return bytes + 200;  // the other markers
}

bool JpegTokens::write(int64_t interval, std::vector<uint8_t>& out) const {
  JpegHeader header;
  header.frame = frame;
  for (size_t i = 0; i < header.frame.component.size(); ++i)
    header.frame.component[i].dc = header.frame.component[i].ac = i == 0 ? 0 : 1;
  header.quant = quant;
  header.colour = colour;
  header.orientation = orientation;
  header.restart_interval = interval;
  const auto dc = dc_counts(interval);
  std::array<HuffmanCodes, 2> dc_codes, ac_codes;
  uint64_t bits = 0;
  for (size_t t = 0; t < (frame.components == 1 ? 1U : 2U); ++t) {
    header.dc[t] = best_huffman_table(dc[t], kMaxCode);
    header.ac[t] = best_huffman_table(ac_counts_[t], kMaxCode);
    dc_codes[t] = huffman_codes(header.dc[t]);
    ac_codes[t] = huffman_codes(header.ac[t]);
    bits += code_bits(dc[t], dc_codes[t], true) + code_bits(ac_counts_[t], ac_codes[t], false);
  }
  const int64_t segment_mcus = interval > 0 ? interval : frame.mcus();
  const int64_t segments = (frame.mcus() + segment_mcus - 1) / segment_mcus;
  std::vector<uint8_t> index(interval > 0 ? 2 * static_cast<size_t>(segments) : 0);
  header.segment_index = index;
  write_jpeg_header(header, out);
  const size_t begin = out.size();
  // Stuffing at most doubles the data; each segment ends with a broken byte and a marker.
  out.resize(begin + 2 * (bits / 8 + static_cast<uint64_t>(segments) * 3) + 16);
  BitWriter writer(out.data() + begin);
  std::array<int, 3> last{};
  const int64_t blocks_in_segment = segment_mcus * frame.blocks_in_mcu;
  int64_t left = blocks_in_segment, segment = 0;
  const uint8_t* segment_begin = writer.position();
  const auto end_segment = [&] {
    writer.finish_segment();
    const auto length = static_cast<size_t>(writer.position() - segment_begin);
    if (index.empty()) return true;
    index[2 * static_cast<size_t>(segment)] = static_cast<uint8_t>(length);
    index[2 * static_cast<size_t>(segment) + 1] = static_cast<uint8_t>(length >> 8);
    return length <= 0xFFFF;
  };
  const HuffmanCodes* codes = ac_codes.data();
  for (size_t t = 0; t < used_; ++t) {
    const uint32_t token = tokens_[t];
    if ((token & kBlock) == 0) {
      const uint32_t symbol = token >> 16, size = symbol & 15;
      writer.put(static_cast<uint32_t>(codes->code[symbol]) << size | (token & 0xFFFF),
                 codes->length[symbol] + size);
      continue;
    }
    if (left == 0) {
      if (!end_segment()) return false;
      writer.put_marker(static_cast<uint8_t>(0xD0 + segment++ % 8));
      segment_begin = writer.position();
      last = {};
      left = blocks_in_segment;
    }
    --left;
    const size_t c = token >> 16 & 3;
    const int value = static_cast<int16_t>(token), difference = value - last[c];
    last[c] = value;
    const uint32_t size = category(difference);
    const HuffmanCodes& dc_code = dc_codes[c == 0 ? 0 : 1];
    writer.put(static_cast<uint32_t>(dc_code.code[size]) << size | extra_bits(difference, size),
               dc_code.length[size] + size);
    codes = &ac_codes[c == 0 ? 0 : 1];
  }
  if (!end_segment()) return false;
  writer.put_marker(0xD9);
  out.resize(static_cast<size_t>(writer.position() - out.data()));
  if (!index.empty()) {  // its bytes lie before the scan header
    const size_t scan_header = 2 + 2 + 4 + 2 * static_cast<size_t>(frame.components);
    std::copy(index.begin(), index.end(),
              out.begin() + static_cast<std::ptrdiff_t>(begin - scan_header - index.size()));
  }
  return true;
}

}  // namespace nf::data

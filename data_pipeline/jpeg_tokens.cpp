// See jpeg_tokens.h.
#include "data_pipeline/jpeg_tokens.h"

#include <algorithm>
#include <cstring>

#include "data_pipeline/cpu_features.h"

namespace nf::data {
namespace {

// Codes of at most so many bits: what one look-up of our reader sees. Costs less than 0.1 % of
// size.
constexpr int kMaxCode = 11;

// Entropy-coded data, with a zero byte stuffed behind each 0xFF.
class BitWriter {
 public:
  explicit BitWriter(uint8_t* to) : to_(to) {}

  [[gnu::always_inline]] void put(uint32_t bits, uint32_t length) {  // at most 27 bits
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

// Code and length of each symbol in one word, its extra bits counted: code << 8 | length + size.
using EmitTable = std::array<uint32_t, 256>;

EmitTable emit_table(const HuffmanCodes& codes, bool dc) {
  EmitTable table{};
  for (uint32_t s = 0; s < 256; ++s) {
    const uint32_t size = dc ? s : s & 15;
    table[s] = static_cast<uint32_t>(codes.code[s]) << 8 | (codes.length[s] + size);
  }
  return table;
}

}  // namespace

struct JpegTokens::Tables {
  std::array<HuffmanSpec, 2> dc_spec, ac_spec;
  std::array<EmitTable, 2> dc, ac;
  uint64_t bits = 0;  // of all codes
};

void JpegTokens::clear() {
  used_ = 0;
  blocks_.clear();
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
  for (const Block& block : blocks_) {
    if (left == 0) {
      last = {};
      left = blocks_in_segment;
    }
    --left;
    ++counts[block.component == 0 ? 0 : 1][category(block.dc - last[block.component])];
    last[block.component] = block.dc;
  }
  return counts;
}

JpegTokens::Tables JpegTokens::make_tables(int64_t interval) const {
  Tables tables;
  const auto dc_count = dc_counts(interval);
  for (size_t t = 0; t < (frame.components == 1 ? 1U : 2U); ++t) {
    tables.dc_spec[t] = best_huffman_table(dc_count[t], kMaxCode);
    tables.ac_spec[t] = best_huffman_table(ac_counts_[t], kMaxCode);
    const HuffmanCodes dc_codes = huffman_codes(tables.dc_spec[t]);
    const HuffmanCodes ac_codes = huffman_codes(tables.ac_spec[t]);
    tables.bits +=
        code_bits(dc_count[t], dc_codes, true) + code_bits(ac_counts_[t], ac_codes, false);
    tables.dc[t] = emit_table(dc_codes, true);
    tables.ac[t] = emit_table(ac_codes, false);
  }
  return tables;
}

// Bytes of the file, about.
int64_t JpegTokens::estimate(int64_t interval, const Tables& tables) const {
  const int64_t segments = interval > 0 ? (frame.mcus() + interval - 1) / interval : 1;
  int64_t bytes = 200;  // markers
  for (size_t t = 0; t < 2; ++t)
    bytes += 42 + tables.dc_spec[t].symbols + tables.ac_spec[t].symbols;
  if (interval > 0) bytes += segment_index_bytes(segments) + 6 + segments * 5 / 2;
  return bytes + static_cast<int64_t>(tables.bits / 8 + tables.bits / 8 / 300);
}

// Entropy-coded data with their markers, from `to` on, and the lengths of the segments.
template <class Unused>
[[gnu::always_inline]] inline bool JpegTokens::write_segments(int64_t interval,
                                                              const Tables& tables,
                                                              std::vector<uint8_t>& index,
                                                              uint8_t*& to) const {
  BitWriter writer(to);
  const int64_t blocks_in_segment = (interval > 0 ? interval : frame.mcus()) * frame.blocks_in_mcu;
  const uint32_t* token = tokens_.data();
  std::array<int, 3> last{};
  int64_t left = blocks_in_segment;
  size_t segment = 0;
  const uint8_t* segment_begin = writer.position();
  const auto end_segment = [&] {
    writer.finish_segment();
    const auto length = static_cast<size_t>(writer.position() - segment_begin);
    if (interval == 0) return true;
    index[2 * segment] = static_cast<uint8_t>(length);
    index[2 * segment + 1] = static_cast<uint8_t>(length >> 8);
    return length <= 0xFFFF;
  };
  for (const Block& block : blocks_) {
    if (left == 0) {
      if (!end_segment()) return false;
      writer.put_marker(static_cast<uint8_t>(0xD0 + segment++ % 8));
      segment_begin = writer.position();
      last = {};
      left = blocks_in_segment;
    }
    --left;
    const size_t t = block.component == 0 ? 0 : 1;
    const int difference = block.dc - last[block.component];
    last[block.component] = block.dc;
    const uint32_t size = category(difference), dc = tables.dc[t][size];
    writer.put((dc >> 8) << size | extra_bits(difference, size), dc & 255);
    const EmitTable& ac = tables.ac[t];
    for (const uint32_t* end = token + block.tokens; token != end; ++token) {
      const uint32_t symbol = *token >> 16, code = ac[symbol];
      writer.put((code >> 8) << (symbol & 15) | (*token & 0xFFFF), code & 255);
    }
  }
  if (!end_segment()) return false;
  writer.put_marker(0xD9);
  to = writer.position();
  return true;
}

bool JpegTokens::write_data(int64_t interval, const Tables& tables, std::vector<uint8_t>& index,
                            uint8_t*& to) const {
  return write_segments<void>(interval, tables, index, to);
}

NF_BMI2 bool JpegTokens::write_data_bmi2(int64_t interval, const Tables& tables,
                                         std::vector<uint8_t>& index, uint8_t*& to) const {
  return write_segments<void>(interval, tables, index, to);
}

bool JpegTokens::write(int64_t interval, int64_t limit, std::vector<uint8_t>& out) const {
  const Tables tables = make_tables(interval);
  if (interval > 0 && estimate(interval, tables) > limit) return false;
  const int64_t segment_mcus = interval > 0 ? interval : frame.mcus();
  const auto segments = static_cast<size_t>((frame.mcus() + segment_mcus - 1) / segment_mcus);
  std::vector<uint8_t> index(interval > 0 ? 2 * segments : 0);
  JpegHeader header;
  header.frame = frame;
  for (size_t i = 0; i < header.frame.component.size(); ++i)
    header.frame.component[i].dc = header.frame.component[i].ac = i == 0 ? 0 : 1;
  header.quant = quant;
  header.dc = tables.dc_spec;
  header.ac = tables.ac_spec;
  header.colour = colour;
  header.orientation = orientation;
  header.restart_interval = interval;
  header.segment_index = index;
  write_jpeg_header(header, out);
  const size_t begin = out.size();
  // Stuffing at most doubles the data; each segment ends with a broken byte and a marker.
  out.resize(begin + 2 * (tables.bits / 8 + segments * 3) + 16);
  uint8_t* to = out.data() + begin;
  if (!(has_bmi2() ? write_data_bmi2(interval, tables, index, to)
                   : write_data(interval, tables, index, to)))
    return false;
  out.resize(static_cast<size_t>(to - out.data()));
  // The index was not known when the header was written; it ends where the scan's header begins.
  const size_t scan_header = 8 + 2 * static_cast<size_t>(frame.components);
  std::copy(index.begin(), index.end(),
            out.begin() + static_cast<std::ptrdiff_t>(begin - scan_header - index.size()));
  return static_cast<int64_t>(out.size()) <= limit;
}

}  // namespace nf::data

// See jpeg_markers.h. Rules: ITU-T T.81, annex B, and what libjpeg-turbo warns of.
#include "data_pipeline/jpeg_markers.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <string>

namespace nf::data {
namespace {

using Span = std::span<const uint8_t>;

constexpr uint8_t kHuffmanTables = 0xC4, kArithmeticConditioning = 0xCC;
constexpr uint8_t kFirstFrame = 0xC0, kLastFrame = 0xCF;  // the frames stand between, and tables
constexpr uint8_t kFirstRestart = 0xD0, kStart = 0xD8, kEnd = 0xD9, kScan = 0xDA;
constexpr uint8_t kQuantTables = 0xDB, kRestartInterval = 0xDD;

enum class Table : uint8_t { kMissing, kValid, kInvalid };

// Codes as counts of each length must fit, and none may be all ones.
bool is_huffman_code(const uint8_t* count) {
  uint32_t code = 0;
  for (uint32_t length = 1; length <= 16; ++length, code <<= 1) {
    code += count[length - 1];
    if (code >= 1U << length) return false;
  }
  return true;
}

class MarkerWalk {
 public:
  MarkerWalk(Span bytes, const DecodeLimits& limits) : bytes_(bytes), limits_(limits) {}

  SampleFault run() {
    if (bytes_.size() < 4 || bytes_[0] != 0xFF || bytes_[1] != kStart)
      return {"JPEG: no start marker"};
    at_ = 2;
    for (;;) {
      uint8_t marker = 0;
      if (!next_marker(marker)) return {reason_};
      if (marker == kEnd) break;
      if (!segment(marker)) return {reason_};
    }
    if (scans_ == 0) return {"JPEG: the end marker comes before any image data"};
    return {};  // what follows is not looked at: phones and cameras append previews and notes
  }

 private:
  bool refuse(const std::string& what) {
    reason_ = "JPEG: " + what;
    return false;
  }

  // Stands behind the marker afterwards.
  bool next_marker(uint8_t& marker) {
    if (at_ >= bytes_.size()) return refuse("ends without an end marker");
    if (bytes_[at_] != 0xFF) return refuse("bytes between markers that belong to none");
    while (at_ < bytes_.size() && bytes_[at_] == 0xFF) ++at_;
    if (at_ >= bytes_.size()) return refuse("ends without an end marker");
    marker = bytes_[at_++];
    return true;
  }

  bool segment(uint8_t marker) {
    if (marker < kFirstFrame || (marker >= kFirstRestart && marker <= kStart)) {
      char name[8];
      std::snprintf(name, sizeof name, "0x%02x", marker);
      return refuse(std::string("marker ") + name + " where none may stand");
    }
    if (bytes_.size() - at_ < 2) return refuse("ends inside a marker segment");
    const size_t length = static_cast<size_t>(bytes_[at_] << 8 | bytes_[at_ + 1]);
    if (length < 2) return refuse("bogus marker length");
    if (length > bytes_.size() - at_) return refuse("ends inside a marker segment");
    const Span payload = bytes_.subspan(at_ + 2, length - 2);
    at_ += length;
    switch (marker) {
      case kHuffmanTables:
        return huffman_tables(payload);
      case kQuantTables:
        return quant_tables(payload);
      case kRestartInterval:
        restarts_ = payload.size() == 2 && (payload[0] | payload[1]) != 0;
        return payload.size() == 2 || refuse("bogus restart interval");
      case kScan:
        return scan(payload) && pass_entropy_data();
      case kArithmeticConditioning:
        return true;
      default:
        return marker > kLastFrame || frame(marker, payload);
    }
  }

  bool huffman_tables(Span p) {
    while (!p.empty()) {
      const size_t kind = p[0] >> 4, number = p[0] & 15;
      if (kind > 1 || number > 3 || p.size() < 17) return refuse("bogus Huffman table");
      size_t symbols = 0;
      for (size_t n = 1; n <= 16; ++n) symbols += p[n];
      if (symbols > 256 || p.size() < 17 + symbols) return refuse("bogus Huffman table");
      const Span values = p.subspan(17, symbols);
      const bool small =
          kind == 1 || std::all_of(values.begin(), values.end(), [](uint8_t v) { return v < 16; });
      huffman_[kind][number] = small && is_huffman_code(&p[1]) ? Table::kValid : Table::kInvalid;
      p = p.subspan(17 + symbols);
    }
    return true;
  }

  bool quant_tables(Span p) {
    while (!p.empty()) {
      const size_t size = (p[0] >> 4) != 0 ? 128 : 64, number = p[0] & 15;
      if (p[0] >> 4 > 1 || number > 3 || p.size() < 1 + size)
        return refuse("bogus quantization table");
      quant_[number] = true;
      p = p.subspan(1 + size);
    }
    return true;
  }

  bool frame(uint8_t marker, Span p) {
    if (components_ > 0) return refuse("a second frame");
    if (p.size() < 6 || p[5] < 1 || p[5] > 4 || p.size() != 6 + size_t{3} * p[5])
      return refuse("bogus frame");
    components_ = p[5];
    for (size_t i = 0; i < components_; ++i) {
      ids_[i] = p[6 + 3 * i];
      quant_of_[i] = p[8 + 3 * i];
    }
    progressive_ = marker % 4 == 2;
    arithmetic_ = marker > 0xC8;
    return true;
  }

  bool scan(Span p) {
    const size_t n = p.empty() ? 0 : p[0];
    if (components_ == 0 || n < 1 || n > components_ || p.size() != 4 + 2 * n)
      return refuse("bogus scan");
    if (++scans_ > limits_.max_scans) return refuse("more scans than the limit");
    const uint8_t *spectrum = &p[1 + 2 * n], first = spectrum[0], last = spectrum[1];
    const bool sound = progressive_ ? first <= last && last < 64 && (first > 0 ? n == 1 : last == 0)
                                    : first == 0 && last == 63 && spectrum[2] == 0;
    if (!sound) return refuse("bogus range of coefficients in a scan");
    for (size_t k = 0; k < n; ++k) {
      const auto* id = std::find(ids_.data(), ids_.data() + components_, p[1 + 2 * k]);
      if (id == ids_.data() + components_) return refuse("scan of a component that is not there");
      const auto component = static_cast<size_t>(id - ids_.data());
      if (quant_of_[component] > 3 || !quant_[quant_of_[component]])
        return refuse("quantization table " + std::to_string(quant_of_[component]) +
                      " was not defined");
      const uint8_t tables = p[2 + 2 * k];
      const bool needs_dc = first == 0 && (spectrum[2] >> 4) == 0;
      if (!arithmetic_ &&
          ((needs_dc && !has_table(0, tables >> 4)) || (last > 0 && !has_table(1, tables & 15))))
        return refuse("bogus or missing Huffman table");
    }
    return true;
  }

  // Tables 0 and 1 may be missing: decoders then take the standard's own, as in motion JPEG.
  bool has_table(size_t kind, size_t number) const {
    if (number > 3) return false;
    const Table table = huffman_[kind][number];
    return table == Table::kValid || (table == Table::kMissing && number < 2);
  }

  // To the next marker that is no restart; restart markers must come in turn.
  bool pass_entropy_data() {
    uint8_t restart = kFirstRestart;
    const uint8_t *p = bytes_.data() + at_, *end = bytes_.data() + bytes_.size();
    const uint8_t* begin = p;
    for (;;) {
      p = static_cast<const uint8_t*>(std::memchr(p, 0xFF, static_cast<size_t>(end - p)));
      if (p == nullptr || end - p < 2) return refuse("ends without an end marker");
      if (p[1] == 0) {
        p += 2;
      } else if (p[1] == 0xFF) {
        ++p;
      } else if (restarts_ && p[1] == restart) {
        p += 2;
        restart = static_cast<uint8_t>(kFirstRestart + (restart + 1 - kFirstRestart) % 8);
      } else {
        break;
      }
    }
    if (p == begin) return refuse("a scan without data");
    at_ = static_cast<size_t>(p - bytes_.data());
    return true;
  }

  Span bytes_;
  const DecodeLimits& limits_;
  std::string reason_;
  size_t at_ = 0, components_ = 0;
  int scans_ = 0;
  bool progressive_ = false, arithmetic_ = false, restarts_ = false;
  std::array<uint8_t, 4> ids_{}, quant_of_{};
  std::array<bool, 4> quant_{};
  std::array<std::array<Table, 4>, 2> huffman_{};  // [DC or AC][number]
};

}  // namespace

SampleFault check_jpeg_markers(Span bytes, const DecodeLimits& limits) {
  return MarkerWalk(bytes, limits).run();
}

}  // namespace nf::data

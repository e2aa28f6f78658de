// See jpeg_scan.h.
#include "data_pipeline/jpeg_scan.h"

#include <algorithm>
#include <cstring>

#include "data_pipeline/cpu_features.h"

namespace nf::data {
namespace {

constexpr uint8_t kFirstRestart = 0xD0, kEndOfImage = 0xD9;

struct StoreSink {
  int16_t* block;
  [[gnu::always_inline]] void put(int k, int, int value) {
    block[kNaturalOrder[static_cast<size_t>(k)]] = static_cast<int16_t>(value);
  }
  void zeros() {}
  void end() {}
};

bool is_marker(std::span<const uint8_t> bytes, size_t at, uint8_t marker) {
  return at + 2 <= bytes.size() && bytes[at] == 0xFF && bytes[at + 1] == marker;
}

uint8_t marker_behind(int64_t segment, int64_t segments) {
  return segment + 1 == segments ? kEndOfImage : static_cast<uint8_t>(kFirstRestart + segment % 8);
}

}  // namespace

size_t unstuff(std::span<const uint8_t> from, uint8_t* to, size_t& written) {
  const uint8_t *p = from.data(), *end = p + from.size();
  uint8_t* out = to;
  while (p < end) {
    const auto rest = static_cast<size_t>(end - p);
    const auto* ff = static_cast<const uint8_t*>(std::memchr(p, 0xFF, rest));
    const size_t plain = ff == nullptr ? rest : static_cast<size_t>(ff - p);
    std::memcpy(out, p, plain);
    out += plain;
    p += plain;
    if (ff == nullptr) break;
    if (end - p < 2 || p[1] != 0) break;  // a marker
    *out++ = 0xFF;
    p += 2;
  }
  written = static_cast<size_t>(out - to);
  return static_cast<size_t>(p - from.data());
}

bool JpegScan::open(std::span<const uint8_t> bytes, const JpegLayout& layout) {
  bytes_ = bytes;
  layout_ = &layout;
  for (size_t i = 0; i < static_cast<size_t>(layout.frame.components); ++i) {
    const JpegComponent& c = layout.frame.component[i];
    if (!dc_[c.dc].build(layout.dc[c.dc], true) || !ac_[c.ac].build(layout.ac[c.ac], false))
      return false;
  }
  const int64_t mcus = layout.frame.mcus();
  segment_mcus_ = layout.restart_interval > 0 ? layout.restart_interval : mcus;
  segments_ = (mcus + segment_mcus_ - 1) / segment_mcus_;
  segment_end_ = mcu_ = 0;
  found_ = skips_ready_ = complete_ = false;
  indexed_ = read_index();
  return true;
}

// Lengths of the segments, u16 little-endian.
bool JpegScan::read_index() {
  const auto index = layout_->segment_index;
  if (index.size() != 2 * static_cast<size_t>(segments_)) return false;
  places_.resize(static_cast<size_t>(segments_));
  size_t at = layout_->scan_begin;
  for (size_t k = 0; k < places_.size(); ++k) {
    const size_t length = static_cast<size_t>(index[2 * k] | index[2 * k + 1] << 8);
    places_[k] = {at, at + length};
    at += length + 2;
  }
  return is_marker(bytes_, at - 2, kEndOfImage);
}

void JpegScan::find_segments() {
  if (found_) return;
  found_ = true;
  places_.clear();
  const auto scan = bytes_.subspan(layout_->scan_begin);
  unstuffed_.resize(scan.size() + BitReader::kPadding);
  size_t at = 0, out = 0;
  for (int64_t k = 0; k < segments_; ++k) {
    size_t written = 0;
    at += unstuff(scan.subspan(at), unstuffed_.data() + out, written);
    places_.push_back({out, out + written});
    out += written;
    if (!is_marker(scan, at, marker_behind(k, segments_))) break;
    at += 2;
    complete_ = k + 1 == segments_;
  }
}

bool JpegScan::load_segment(int64_t segment, BitReader& reader) {
  const auto k = static_cast<size_t>(segment);
  if (!indexed_) {
    find_segments();
    if (k >= places_.size()) return false;
    reader.start(unstuffed_.data() + places_[k].begin, unstuffed_.data() + places_[k].end);
    return true;
  }
  const Segment& place = places_[k];
  if (segment > 0 && !is_marker(bytes_, place.begin - 2, marker_behind(segment - 1, segments_)))
    return false;
  if (!is_marker(bytes_, place.end, marker_behind(segment, segments_))) return false;
  const size_t length = place.end - place.begin;
  if (unstuffed_.size() < length + BitReader::kPadding)
    unstuffed_.resize(length + BitReader::kPadding);
  size_t written = 0;
  if (unstuff(bytes_.subspan(place.begin, length), unstuffed_.data(), written) != length)
    return false;
  reader.start(unstuffed_.data(), unstuffed_.data() + written);
  return true;
}

bool JpegScan::is_complete() {
  indexed_ = false;
  find_segments();
  return complete_;
}

bool JpegScan::is_sound() {
  if (!is_complete()) return false;
  prepare_skips();
  for (int64_t k = 0; k < segments_; ++k) {
    const int64_t end = std::min((k + 1) * segment_mcus_, layout_->frame.mcus());
    if (!begin_segment(k) || !(has_bmi2() ? skip_to_bmi2(end) : skip_to(end))) return false;
    // What is left is the filling of the last byte; libjpeg warns of more.
    if (reader_.left() >= 8) return false;
  }
  return true;
}

bool JpegScan::index_is_right() {
  if (!indexed_) return false;
  size_t at = layout_->scan_begin, written = 0;
  std::vector<uint8_t> plain(bytes_.size());
  for (const Segment& place : places_) {
    if (place.begin != at) return false;
    at += unstuff(bytes_.subspan(at), plain.data(), written);
    if (place.end != at) return false;
    at += 2;
  }
  return true;
}

bool JpegScan::begin_segment(int64_t segment) {
  segment_end_ = 0;
  if (!load_segment(segment, reader_)) return false;
  mcu_ = segment * segment_mcus_;
  segment_end_ = mcu_ + segment_mcus_;
  last_dc_ = {};
  return true;
}

void JpegScan::prepare_skips() {
  if (skips_ready_) return;
  for (int i = 0; i < layout_->frame.components; ++i)
    ac_[layout_->frame.component[static_cast<size_t>(i)].ac].build_skips();
  skips_ready_ = true;
}

template <JpegScan::Work kWork>
[[gnu::always_inline]] inline bool JpegScan::read_mcu(CoefficientBlock* const* blocks) {
  struct NoSink {
    void put(int, int, int) {}
    void zeros() {}
    void end() {}
  };
  BitReader r = reader_;
  const JpegFrame& frame = layout_->frame;
  for (int b = 0; b < frame.blocks_in_mcu; ++b) {
    const size_t i = frame.component_of_block[static_cast<size_t>(b)];
    const JpegComponent& c = frame.component[i];
    int difference;
    if (!read_dc(r, dc_[c.dc], difference)) return false;
    last_dc_[i] += difference;
    if (last_dc_[i] != static_cast<int16_t>(last_dc_[i])) return false;
    if constexpr (kWork == Work::kStore) {
      int16_t* block = *blocks[b];
      block[0] = static_cast<int16_t>(last_dc_[i]);
      StoreSink sink{block};
      if (!read_ac(r, ac_[c.ac], sink)) return false;
    } else if constexpr (kWork == Work::kSkip) {
      if (!skip_ac(r, ac_[c.ac])) return false;
    } else {
      NoSink sink;
      if (!read_ac(r, ac_[c.ac], sink)) return false;
    }
  }
  reader_ = r;
  ++mcu_;
  return r.left() >= 0;
}

template <class Unused>
[[gnu::always_inline]] inline bool JpegScan::skip(int64_t mcu) {
  if (skips_ready_) {
    while (mcu_ < mcu) {
      if (!read_mcu<Work::kSkip>(nullptr)) return false;
    }
  } else {
    while (mcu_ < mcu) {
      if (!read_mcu<Work::kSkipPlainly>(nullptr)) return false;
    }
  }
  return true;
}

bool JpegScan::decode_here(CoefficientBlock* const* blocks) {
  return read_mcu<Work::kStore>(blocks);
}
bool JpegScan::skip_to(int64_t mcu) { return skip<void>(mcu); }
NF_BMI2 bool JpegScan::decode_here_bmi2(CoefficientBlock* const* blocks) {
  return read_mcu<Work::kStore>(blocks);
}
NF_BMI2 bool JpegScan::skip_to_bmi2(int64_t mcu) { return skip<void>(mcu); }

bool JpegScan::decode_mcu(int64_t mcu, CoefficientBlock* const* blocks) {
  if ((mcu >= segment_end_ || mcu < mcu_) && !begin_segment(mcu / segment_mcus_)) return false;
  if (mcu_ < mcu) {
    if (!indexed_) prepare_skips();  // with short segments the tables cost more than they save
    if (!(has_bmi2() ? skip_to_bmi2(mcu) : skip_to(mcu))) return false;
  }
  return has_bmi2() ? decode_here_bmi2(blocks) : decode_here(blocks);
}

bool is_sound_plain_jpeg(std::span<const uint8_t> bytes) {
  JpegLayout layout;
  JpegScan scan;
  return read_jpeg_layout(bytes, layout) && scan.open(bytes, layout) && scan.is_sound();
}

}  // namespace nf::data

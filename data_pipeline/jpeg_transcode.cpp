// See jpeg_transcode.h. Plain files are read symbol by symbol, other kinds through libjpeg's
// coefficient arrays; both end as tokens.
#include "data_pipeline/jpeg_transcode.h"

#include <algorithm>
#include <cstring>

#include "data_pipeline/cpu_features.h"
#include "data_pipeline/jpeg_errors.h"
#include "data_pipeline/jpeg_scan.h"
#include "data_pipeline/jpeg_tokens.h"

namespace nf::data {

struct JpegTranscoder::Impl {
  JpegLayout layout;
  JpegScan scan;
  JpegTokens tokens;

  jpeg_decompress_struct cinfo{};
  JpegErrors errors{};
  std::span<const uint8_t> bytes;
  bool usable = false;

  bool read_segments();
  bool read_segment(BitReader& reader, int64_t mcus);
  bool read_segment_bmi2(BitReader& reader, int64_t mcus);
  template <class Unused>
  bool read_mcus(BitReader& reader, int64_t mcus);

  bool read_with_libjpeg();
  void read_coefficients();
  bool take_frame();
  bool take_quant(size_t component);
  void take_mcu_row(jvirt_barray_ptr* arrays, int64_t row);
  void take_block(size_t component, const JCOEF* block);
};

template <class Unused>
[[gnu::always_inline]] inline bool JpegTranscoder::Impl::read_mcus(BitReader& reader,
                                                                   int64_t mcus) {
  BitReader r = reader;
  const JpegFrame& frame = layout.frame;
  std::array<int, 3> last{};
  for (int64_t m = 0; m < mcus; ++m) {
    tokens.reserve_mcu();
    for (int b = 0; b < frame.blocks_in_mcu; ++b) {
      const size_t c = frame.component_of_block[static_cast<size_t>(b)];
      int difference;
      if (!read_dc(r, scan.dc_table(static_cast<int>(c)), difference)) return false;
      last[c] += difference;
      JpegTokens::Sink sink;
      if (!tokens.begin_block(c, last[c], sink)) return false;
      if (!read_ac(r, scan.ac_table(static_cast<int>(c)), sink)) return false;
      tokens.end_block(sink);
    }
    if (r.left() < 0) return false;
  }
  // What is left is the filling of the last byte; libjpeg warns of more.
  return r.left() < 8;
}

bool JpegTranscoder::Impl::read_segment(BitReader& reader, int64_t mcus) {
  return read_mcus<void>(reader, mcus);
}

NF_BMI2 bool JpegTranscoder::Impl::read_segment_bmi2(BitReader& reader, int64_t mcus) {
  return read_mcus<void>(reader, mcus);
}

bool JpegTranscoder::Impl::read_segments() {
  if (!scan.open(bytes, layout) || !scan.is_complete()) return false;
  int64_t left = layout.frame.mcus();
  for (int64_t k = 0; k < scan.segments(); ++k) {
    const int64_t mcus = std::min(left, scan.segment_mcus());
    left -= mcus;
    BitReader reader;
    if (!scan.load_segment(k, reader)) return false;
    if (!(has_bmi2() ? read_segment_bmi2(reader, mcus) : read_segment(reader, mcus))) return false;
  }
  return true;
}

JpegTranscoder::JpegTranscoder() : impl_(std::make_unique<Impl>()) {}
JpegTranscoder::~JpegTranscoder() = default;

bool JpegTranscoder::read_plain(std::span<const uint8_t> bytes) {
  Impl& d = *impl_;
  d.usable = false;
  d.tokens.clear();
  d.bytes = bytes;
  if (!read_jpeg_layout(bytes, d.layout) || !d.read_segments()) return false;
  d.tokens.frame = d.layout.frame;
  for (size_t i = 0; i < static_cast<size_t>(d.layout.frame.components); ++i) {
    const size_t q = d.layout.frame.component[i].quant;
    d.tokens.quant[q] = d.layout.quant[q];
  }
  d.tokens.colour = d.layout.colour;
  d.tokens.orientation = d.layout.orientation;
  return d.usable = true;
}

bool JpegTranscoder::check_plain(std::span<const uint8_t> bytes) {
  Impl& d = *impl_;
  d.usable = false;
  return read_jpeg_layout(bytes, d.layout) && d.scan.open(bytes, d.layout) && d.scan.is_sound();
}

bool JpegTranscoder::read_any(std::span<const uint8_t> bytes) {
  Impl& d = *impl_;
  d.usable = false;
  d.tokens.clear();
  d.bytes = bytes;
  return d.usable = d.read_with_libjpeg();
}

bool JpegTranscoder::Impl::read_with_libjpeg() {
  cinfo = {};
  init_jpeg_errors(errors);
  cinfo.err = &errors.base;
  const struct Destroyer {
    jpeg_decompress_struct& owned;
    ~Destroyer() { jpeg_destroy_decompress(&owned); }
  } destroyer{cinfo};
  if (setjmp(errors.jump) != 0) return false;
  read_coefficients();
  return true;
}

// Jumps out by fail_jpeg() when the image cannot be transcoded. Owns nothing.
void JpegTranscoder::Impl::read_coefficients() {
  const auto common = reinterpret_cast<j_common_ptr>(&cinfo);
  jpeg_create_decompress(&cinfo);
  jpeg_mem_src(&cinfo, bytes.data(), static_cast<unsigned long>(bytes.size()));
  jpeg_save_markers(&cinfo, JPEG_APP0 + 1, 0xFFFF);
  jpeg_read_header(&cinfo, TRUE);
  if (cinfo.arith_code || (cinfo.num_components != 1 && cinfo.num_components != 3))
    fail_jpeg(common, "not transcoded");
  jvirt_barray_ptr* arrays = jpeg_read_coefficients(&cinfo);
  if (!take_frame()) fail_jpeg(common, "not transcoded");
  tokens.colour = {cinfo.saw_JFIF_marker != FALSE, cinfo.saw_Adobe_marker != FALSE,
                   cinfo.Adobe_transform};
  tokens.orientation = saved_orientation(cinfo);
  for (int64_t row = 0; row < tokens.frame.mcu_rows; ++row) take_mcu_row(arrays, row);
  jpeg_finish_decompress(&cinfo);
}

bool JpegTranscoder::Impl::take_frame() {
  JpegFrame& f = tokens.frame;
  f = {};
  f.width = cinfo.image_width;
  f.height = cinfo.image_height;
  f.components = cinfo.num_components;
  for (size_t i = 0; i < static_cast<size_t>(f.components); ++i) {
    const jpeg_component_info& c = cinfo.comp_info[i];
    f.component[i].id = static_cast<uint8_t>(c.component_id);
    f.component[i].h = static_cast<uint8_t>(c.h_samp_factor);
    f.component[i].v = static_cast<uint8_t>(c.v_samp_factor);
    if (!take_quant(i)) return false;
    if (!cinfo.progressive_mode) continue;
    for (int k = 0; k < DCTSIZE2; ++k) {
      // Not all bits of a coefficient came: libjpeg smooths such images while it decodes.
      if (cinfo.coef_bits[i][k] != 0) return false;
    }
  }
  return f.set_grid();
}

// The table that the component's coefficients were quantised with; equal ones are kept once.
bool JpegTranscoder::Impl::take_quant(size_t component) {
  const JQUANT_TBL* from = cinfo.comp_info[component].quant_table;
  if (from == nullptr) return false;
  QuantTable table;
  table.defined = true;
  for (size_t k = 0; k < 64; ++k) table.value[k] = from->quantval[kNaturalOrder[k]];
  for (size_t t = 0; t <= component; ++t) {
    if (tokens.quant[t].defined && tokens.quant[t] != table) continue;
    tokens.quant[t] = table;
    tokens.frame.component[component].quant = static_cast<uint8_t>(t);
    return true;
  }
  return false;
}

void JpegTranscoder::Impl::take_block(size_t component, const JCOEF* block) {
  const auto common = reinterpret_cast<j_common_ptr>(&cinfo);
  JpegTokens::Sink sink;
  if (!tokens.begin_block(component, block[0], sink)) fail_jpeg(common, "coefficient out of range");
  int run = 0;
  for (size_t k = 1; k < 64; ++k) {
    const int value = block[kNaturalOrder[k]];
    if (value == 0) {
      ++run;
      continue;
    }
    if (value < -1023 || value > 1023) fail_jpeg(common, "coefficient out of range");
    for (; run >= 16; run -= 16) sink.zeros();
    sink.put(static_cast<int>(k), run, value);
    run = 0;
  }
  if (run > 0) sink.end();
  tokens.end_block(sink);
}

// Blocks beyond the image that fill up its last MCUs are not coded in every kind of file; they
// repeat the last DC value here, which is cheapest. No pixel depends on them.
void JpegTranscoder::Impl::take_mcu_row(jvirt_barray_ptr* arrays, int64_t row) {
  const JpegFrame& f = tokens.frame;
  const bool one = f.components == 1;
  std::array<std::array<JBLOCKROW, 4>, 3> lines{};
  std::array<int, 3> last{};
  for (size_t c = 0; c < static_cast<size_t>(f.components); ++c) {
    const auto& info = cinfo.comp_info[c];
    const int rows = one ? 1 : f.component[c].v;
    for (int y = 0; y < rows; ++y) {
      const auto line = static_cast<JDIMENSION>(row * rows + y);
      if (line >= info.height_in_blocks) continue;
      lines[c][static_cast<size_t>(y)] = *cinfo.mem->access_virt_barray(
          reinterpret_cast<j_common_ptr>(&cinfo), arrays[c], line, 1, FALSE);
    }
  }
  for (int64_t m = 0; m < f.mcus_per_row; ++m) {
    tokens.reserve_mcu();
    for (size_t c = 0; c < static_cast<size_t>(f.components); ++c) {
      const int columns = one ? 1 : f.component[c].h, rows = one ? 1 : f.component[c].v;
      for (int k = 0; k < rows * columns; ++k) {
        const JBLOCKROW line = lines[c][static_cast<size_t>(k / columns)];
        const int64_t at = m * columns + k % columns;
        if (line != nullptr && at < int64_t{cinfo.comp_info[c].width_in_blocks}) {
          take_block(c, line[at]);
          last[c] = line[at][0];
        } else {
          JBLOCK block = {};
          block[0] = static_cast<JCOEF>(last[c]);
          take_block(c, block);
        }
      }
    }
  }
}

bool JpegTranscoder::write(size_t original, const TranscodeOptions& options,
                           std::vector<uint8_t>& out) {
  const Impl& d = *impl_;
  if (!d.usable) return false;
  const auto before = static_cast<int64_t>(original);
  const int64_t limit = before + before * options.max_growth_permille / 1000;
  const int64_t mcus = d.tokens.frame.mcus();
  for (const int64_t interval : options.intervals) {
    if (interval >= mcus || (mcus + interval - 1) / interval > kMaxIndexedSegments) continue;
    if (d.tokens.write(interval, limit, out)) return true;
  }
  return d.tokens.write(0, before, out);
}

bool transcode_jpeg(std::span<const uint8_t> bytes, const TranscodeOptions& options,
                    std::vector<uint8_t>& out) {
  JpegTranscoder transcoder;
  return (transcoder.read_plain(bytes) || transcoder.read_any(bytes)) &&
         transcoder.write(bytes.size(), options, out);
}

}  // namespace nf::data

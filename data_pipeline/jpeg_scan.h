// Random access to the entropy-coded data of a plain JPEG: any MCU can be decoded; those before it
// in the same restart segment are passed over without storing anything. With restart markers, or
// with the segment index that nf-pack stores, segments that nobody asks for are not even looked at.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "data_pipeline/jpeg_huffman.h"
#include "data_pipeline/jpeg_layout.h"

namespace nf::data {

using CoefficientBlock = int16_t[64];  // one 8 x 8 block, natural order

// Copies entropy-coded data without the zero bytes stuffed behind 0xFF. Gives how many bytes were
// read: up to the first marker, or all. `to` must have room for as many.
size_t unstuff(std::span<const uint8_t> from, uint8_t* to, size_t& written);

class JpegScan {
 public:
  // Keeps references to both until the next open(). False: tables that only libjpeg may judge.
  bool open(std::span<const uint8_t> bytes, const JpegLayout& layout);

  // Adds the coefficients of MCU `mcu` (counted in reading order) to its blocks, which the caller
  // has set to zero. Going forwards is cheap. False: damaged or odd data.
  bool decode_mcu(int64_t mcu, CoefficientBlock* const* blocks);

  // For those who read everything: restart segments, and a reader at the start of one.
  int64_t segments() const { return segments_; }
  int64_t segment_mcus() const { return segment_mcus_; }  // of every segment but the last
  bool load_segment(int64_t segment, BitReader& reader);
  // True when the markers between the segments are those that belong there and the end marker
  // follows the last one at once.
  bool is_complete();
  // True when every code up to the end marker is one that libjpeg-turbo decodes without a warning.
  bool is_sound();
  // True when the segment index says where the segments really are.
  bool index_is_right();

  const HuffmanTable& dc_table(int component) const {
    return dc_[layout_->frame.component[static_cast<size_t>(component)].dc];
  }
  const HuffmanTable& ac_table(int component) const {
    return ac_[layout_->frame.component[static_cast<size_t>(component)].ac];
  }

 private:
  struct Segment {
    size_t begin, end;  // in unstuffed_ or, with an index, in the file
  };

  bool read_index();
  void find_segments();  // without an index: unstuffs everything
  bool begin_segment(int64_t segment);
  void prepare_skips();

  enum class Work { kStore, kSkip, kSkipPlainly };
  template <Work kWork>
  bool read_mcu(CoefficientBlock* const* blocks);
  template <class Unused>
  bool skip(int64_t mcu);
  bool decode_here(CoefficientBlock* const* blocks);
  bool skip_to(int64_t mcu);
  bool decode_here_bmi2(CoefficientBlock* const* blocks);
  bool skip_to_bmi2(int64_t mcu);

  std::span<const uint8_t> bytes_;
  const JpegLayout* layout_ = nullptr;
  std::array<HuffmanTable, 4> dc_, ac_;
  bool indexed_ = false, found_ = false, skips_ready_ = false, complete_ = false;
  int64_t segments_ = 0, segment_mcus_ = 0;
  std::vector<Segment> places_;
  std::vector<uint8_t> unstuffed_;

  BitReader reader_;
  int64_t segment_end_ = 0;  // MCU behind the segment that reader_ is in; 0: in none
  int64_t mcu_ = 0;          // that reader_ stands before
  std::array<int, 3> last_dc_{};
};

// A plain JPEG whose entropy-coded data are sound to the last bit: libjpeg-turbo decodes it without
// a warning, provided that it accepts the headers.
bool is_sound_plain_jpeg(std::span<const uint8_t> bytes);

}  // namespace nf::data

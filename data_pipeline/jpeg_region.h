// A part of a JPEG at the price of that part, with the bits that decoding the whole and cutting it
// out would give.
//
// The entropy-coded data are read by jpeg_scan.h, which goes past the MCUs outside the part or,
// with restart segments, never looks at them. What remains is stock libjpeg-turbo: it is given the
// header of a small JPEG that consists of the MCUs under the part and a margin, and asks us for the
// coefficients of each. The margin covers what upsampling of chroma looks at.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "data_pipeline/box.h"
#include "data_pipeline/decode.h"

namespace nf::data {

// Keeps its memory between images; one for each thread.
class JpegRegionDecoder {
 public:
  JpegRegionDecoder();
  ~JpegRegionDecoder();
  JpegRegionDecoder(const JpegRegionDecoder&) = delete;
  JpegRegionDecoder& operator=(const JpegRegionDecoder&) = delete;

  // Reads the headers of `bytes`, which must stay until the next open(). False when this is not a
  // plain JPEG (jpeg_layout.h) within the limits: decode_image() then has the last word.
  bool open(std::span<const uint8_t> bytes, const DecodeLimits& limits = {});
  // Upright size, after open().
  int64_t width() const;
  int64_t height() const;

  // Decodes `box` of the upright image. `view` covers at least the box and lives until the next
  // call. False when the data are damaged or odd: as above. bad_alloc passes through.
  bool decode(const Box& box, PixelView& view);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The size of an image file and any part of it: the fast way for plain JPEGs, decode_image for all
// else.
class RegionDecoder {
 public:
  // `bytes` must stay until the next open(). Never throws.
  SampleFault open(std::span<const uint8_t> bytes, const DecodeLimits& limits = {});
  int64_t width() const { return width_; }
  int64_t height() const { return height_; }
  // As above; the box must lie in the image. Never throws for any input.
  SampleFault decode(const Box& box, PixelView& view);

 private:
  SampleFault decode_whole();

  JpegRegionDecoder jpeg_;
  Image image_;
  std::span<const uint8_t> bytes_;
  DecodeLimits limits_;
  int64_t width_ = 0, height_ = 0;
  bool whole_ = false;  // image_ holds the image
};

}  // namespace nf::data

// Reads the size and kind of PNG, BMP, WebP and TIFF files before any decoder sees them, so that a
// lying header costs nothing and damage that decoders pass over (a wrong PNG checksum, a strip
// beyond the end of a TIFF) is refused. JPEG has its own path (jpeg.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data_pipeline/decode.h"

namespace nf::data {

enum class ImageFormat { kUnknown, kJpeg, kPng, kBmp, kWebp, kTiff };

// By magic bytes. `reason` says what the bytes look like when the format is kUnknown.
ImageFormat sniff_format(std::span<const uint8_t> bytes, SampleFault& reason);

struct ImageHeader {
  int64_t width = 0, height = 0;  // as stored
  int64_t decoder_bytes =
      0;                // per pixel: what OpenCV's decoder holds at most, our RGB copy not counted
  int orientation = 1;  // EXIF, to be applied after decoding
};

// Each checks its format's structure and fills `header`; limits on the size are the caller's.
SampleFault read_png_header(std::span<const uint8_t> bytes, ImageHeader& header);
SampleFault read_bmp_header(std::span<const uint8_t> bytes, ImageHeader& header);
SampleFault read_webp_header(std::span<const uint8_t> bytes, ImageHeader& header);
SampleFault read_tiff_header(std::span<const uint8_t> bytes, ImageHeader& header);

// The PNG with nothing but the chunks that decide its colours (IHDR, PLTE, IDAT, IEND): no gamma,
// profile, transparency or compressed text can then change the result or cost memory. Call only
// after read_png_header accepted the bytes.
std::vector<uint8_t> strip_png(std::span<const uint8_t> bytes);

}  // namespace nf::data

// From the bytes of an encoded image file to upright 8-bit RGB pixels, or a reason why not. Strict:
// what a decoder would only warn about is refused, since a damaged image that trains silently is
// worse than one that is listed. The format is told by magic bytes, never by name; announced sizes
// are checked before anything is allocated.
//
// JPEG goes through libjpeg-turbo (jpeg.h), PNG, BMP, WebP, TIFF and what OpenCV reads besides
// through cv::imdecode. Gray is repeated, palettes are expanded, alpha is dropped (not composited),
// 16-bit samples become 8-bit by v >> 8, EXIF orientation is applied. Rules in full:
// docs/data_format.md.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data_pipeline/shard_dataset.h"

namespace nf::data {

struct Image {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // [height, width, 3], row-major
};

struct DecodeLimits {
  int64_t max_pixels = 200'000'000;        // announced width x height
  int64_t max_side = 65'535;               // what a shard's u16 /width and /height can hold
  int64_t max_bytes = int64_t{900} << 20;  // decoder's working memory, as estimated from the header
  int max_scans = 500;                     // of a progressive JPEG
};

// Decodes `bytes` into `out`, reusing its memory. Never throws for any input; after a fault `out`
// is unspecified.
SampleFault decode_image(std::span<const uint8_t> bytes, Image& out,
                         const DecodeLimits& limits = {});

// Says what decode_image would say, without keeping pixels where the format allows it (JPEG); gives
// the upright size.
SampleFault check_image(std::span<const uint8_t> bytes, int& width, int& height,
                        const DecodeLimits& limits = {});

// Size after EXIF orientation, from the headers alone; faults for unknown formats and sizes beyond
// the limits.
SampleFault probe_image(std::span<const uint8_t> bytes, int& width, int& height,
                        const DecodeLimits& limits = {});

}  // namespace nf::data

// JPEG through libjpeg-turbo, strictly: whatever the library would warn about is a fault, and so is
// a file without its end marker. Sizes, scans and memory are limited before pixels are decoded.
// Baseline, progressive and arithmetic coding, gray, YCbCr, RGB, CMYK and YCCK are accepted; bytes
// after the end marker (a second picture, padding) are ignored.
//
// The inverse DCT is the accurate integer one and chroma is upsampled with the triangle filter;
// libjpeg-turbo computes both to the same bits with and without SIMD.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data_pipeline/decode.h"

namespace nf::data {

// The whole image, upright (EXIF orientation applied). bad_alloc passes through.
SampleFault decode_jpeg(std::span<const uint8_t> bytes, Image& out, const DecodeLimits& limits);

// Decodes every row and keeps none: tells what decode_jpeg would say, in little memory. Gives the
// upright size.
SampleFault check_jpeg(std::span<const uint8_t> bytes, int& width, int& height,
                       const DecodeLimits& limits);

// Upright size from the headers.
SampleFault probe_jpeg(std::span<const uint8_t> bytes, int& width, int& height,
                       const DecodeLimits& limits);

// Baseline JPEG, 4:2:0, optimized Huffman tables: equal pixels and quality (1..100), equal bytes.
std::vector<uint8_t> encode_jpeg(const Image& image, int quality);

}  // namespace nf::data

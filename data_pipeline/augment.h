// From encoded bytes to the uint8 pixels the network sees. Everything random is drawn from PositionRng(seed, kAugment,
// position): the same position gives the same pixels whoever computes them.
#pragma once

#include <cstdint>
#include <string>

#include "core/options.h"
#include "data_pipeline/decode.h"

namespace nf::data {

enum class Crop {
  kRandomResized,  // area and aspect drawn, then resized (NFNet spec section 11)
  kRandomPadded,   // the CIFAR recipe: resized to the target if needed, padded by reflection, random offset
  kCenter          // evaluation: whole image to (S + margin)^2 without keeping the aspect ratio, then centre crop S
};
enum class Interpolation { kBilinear, kBicubic };  // bicubic: Keys a = -0.5; half-pixel centres, no antialias

struct AugmentOptions {
  int64_t image_size = 224;
  Crop crop = Crop::kRandomResized;
  Interpolation interpolation = Interpolation::kBicubic;
  double scale_min = 0.08, scale_max = 1.0;  // kRandomResized: fraction of the image's area
  double ratio_min = 0.75, ratio_max = 4.0 / 3.0;
  int64_t padding = 4;       // kRandomPadded, pixels each side
  int64_t resize_margin = 32;  // kCenter
  bool flip = true;          // horizontal, probability 0.5; never with kCenter
};

// Decodes, crops, flips and resizes one image into `out` ([image_size, image_size, 3] RGB uint8, row-major).
SampleFault load_image(const SampleData& data, const AugmentOptions& options, uint64_t seed, uint64_t position, uint8_t* out);

}  // namespace nf::data

// From encoded bytes to the uint8 pixels the network sees. Everything random is drawn from
// PositionRng(seed, kAugment, position): the same position gives the same pixels whoever computes
// them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/options.h"
#include "data_pipeline/decode.h"
#include "data_pipeline/jpeg_region.h"
#include "data_pipeline/mix.h"
#include "data_pipeline/randaugment.h"
#include "data_pipeline/resize.h"

namespace nf::data {

enum class Crop {
  kRandomResized,  // area and aspect drawn, then resized (NFNet spec section 11)
  kRandomPadded,  // the CIFAR recipe: resized to the target if needed, padded by reflection, random
                  // offset
  kCenter  // evaluation: whole image to (S + margin)^2 without keeping the aspect ratio, then
           // centre crop S
};

struct AugmentOptions {
  int64_t image_size = 224;
  Crop crop = Crop::kRandomResized;
  Interpolation interpolation = Interpolation::kBicubic;
  bool antialias = false;                    // ResizeSpec::antialias
  double scale_min = 0.08, scale_max = 1.0;  // kRandomResized: fraction of the image's area
  double ratio_min = 0.75, ratio_max = 4.0 / 3.0;
  double min_covered =
      0.1;  // kRandomResized: smaller crops are drawn again (TensorFlow's min_object_covered)
  int64_t padding = 4;         // kRandomPadded, pixels each side
  int64_t resize_margin = 32;  // kCenter
  bool flip = true;            // horizontal, probability 0.5; never with kCenter
  // After the crop, in this order; both need a second look at the data set (slot.h), load_image
  // does neither.
  MixOptions mix;
  RandAugmentOptions randaugment;
};

// What is drawn for one image, from its size alone: the box of the source, and whether it is
// mirrored.
struct CropDraw {
  Box box;
  bool flip = false;
};

// kRandomResized after TensorFlow's sample_distorted_bounding_box with the whole image as the
// object: up to 10 attempts of aspect ratio ~ U[ratio_min, ratio_max), then the height, a whole
// number drawn uniformly between those that give scale_min and scale_max of the area (and fit the
// image), then the place, uniform over all that fit. When every attempt fails, or the crop is the
// whole image, the padded centre crop of the recipe: a centred square of S / (S + resize_margin) of
// the short side. The mirror bit is drawn first, so that it does not depend on the number of
// attempts.
CropDraw draw_crop(const AugmentOptions& options, int64_t width, int64_t height, uint64_t seed,
                   uint64_t position);

// Memory that load_image keeps from one image to the next; one for each thread.
struct LoadScratch {
  RegionDecoder decoder;
  Resizer resizer;
  std::vector<uint8_t> square = {};
  std::vector<int64_t> columns = {};
};

// Decodes, crops, flips and resizes one image into `out` ([image_size, image_size, 3] RGB uint8,
// row-major). Of a JPEG only the part is decoded that the crop needs; pixels are those of decoding
// the whole.
SampleFault load_image(std::span<const uint8_t> encoded, const AugmentOptions& options,
                       uint64_t seed, uint64_t position, uint8_t* out, LoadScratch& scratch);
SampleFault load_image(std::span<const uint8_t> encoded, const AugmentOptions& options,
                       uint64_t seed, uint64_t position, uint8_t* out);

}  // namespace nf::data

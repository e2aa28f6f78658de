// RandAugment with the 16 operations of the NFNet recipe (spec section 11; Cubuk et al.,
// arXiv 1909.13719): `layers` operations, each drawn uniformly, all of one magnitude. Integer
// arithmetic on uint8: the bits depend on (seed, position) only. Where the published code and its
// description differ the description holds (docs/decisions/011).
#pragma once

#include <cstdint>
#include <vector>

namespace nf::data {

struct RandAugmentOptions {
  int64_t layers = 0;     // 0: off; the recipe has 4
  double magnitude = 10;  // 10 is the published maximum of each operation's range; more is allowed
};

enum class RandAugmentOp {
  kAutoContrast,
  kEqualize,
  kInvert,
  kRotate,     // 30 degrees at 10, about the centre
  kPosterize,  // keeps int(4 m / 10) bits
  kSolarize,   // inverts values from int(256 m / 10) on
  kColor,      // these four: factor 0.1 + 1.8 m / 10 between gray, mean, black, smoothed (0) and
  kContrast,   // the image (1), beyond it above 1
  kBrightness,
  kSharpness,
  kShearX,  // 0.3 at 10, from the upper left corner
  kShearY,
  kTranslateX,  // 100 pixels at 10
  kTranslateY,
  kCutout,       // a square of 2 int(40 m / 10) pixels a side
  kSolarizeAdd,  // adds int(110 m / 10) to values below 128
};
inline constexpr int kRandAugmentOps = 16;

// What is drawn for one operation.
struct RandAugmentDraw {
  RandAugmentOp op = RandAugmentOp::kInvert;
  bool negative = false;               // rotate, shear, translate the other way
  int64_t centre_x = 0, centre_y = 0;  // of kCutout
};

// One operation on rgb [height, width, 3], in place. Geometric ones take the nearest pixel and fill
// with 128. `scratch` is memory that the caller keeps from call to call.
void apply_rand_augment(const RandAugmentDraw& draw, double magnitude, int64_t width,
                        int64_t height, uint8_t* rgb, std::vector<uint8_t>& scratch);

// The draw of one layer of a position.
RandAugmentDraw draw_rand_augment(int64_t width, int64_t height, uint64_t seed, uint64_t position,
                                  int64_t layer);

// All layers of a position.
void rand_augment(const RandAugmentOptions& options, int64_t width, int64_t height, uint64_t seed,
                  uint64_t position, uint8_t* rgb, std::vector<uint8_t>& scratch);

}  // namespace nf::data

// MixUp and CutMix as in the NFNet recipe (spec section 11), with every draw and every partner a
// function of (seed, position) alone: docs/decisions/011. The share of the first image is the
// weight of its label.
#pragma once

#include <cstdint>

#include "data_pipeline/resize.h"
#include "data_pipeline/sampler.h"

namespace nf::data {

struct MixOptions {
  double mixup_alpha = 0;  // share ~ Beta(alpha, alpha); 0: no MixUp
  bool cutmix = false;     // with MixUp: it takes the odd positions, MixUp the even ones

  bool on() const { return mixup_alpha > 0 || cutmix; }
};

struct MixDraw {
  bool cutmix = false;
  uint32_t share = 65536;  // MixUp: of the first image, in 1/65536
  Box box;                 // CutMix: inside it the first image stays; may be empty

  double ratio(int64_t side) const;  // the first label's weight, 0..1
};

// For images of side x side pixels.
MixDraw draw_mix(const MixOptions& options, int64_t side, uint64_t seed, uint64_t position);

// first := the mixture. Both [side, side, 3].
void mix_images(const MixDraw& draw, int64_t side, uint8_t* first, const uint8_t* second);

// Which sample is the second image at each position: an order of its own, of the same kind as the
// run's. Each sample is a partner once in N positions, whatever the batch size, the number of ranks
// or data.repeat_augmentation.
SamplerOptions partner_order(const SamplerOptions& order, uint64_t seed);
// The seed of the partner's own crop and flip.
uint64_t partner_seed(uint64_t seed);

}  // namespace nf::data

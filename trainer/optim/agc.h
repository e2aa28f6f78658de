// Adaptive gradient clipping: limits each unit's gradient norm to `clip` times the norm of its
// weights. Brock et al. 2021, arXiv 2102.06171; units by DeepMind's rule (nfnet_spec.md section 6).
// Norms are accumulated in float64 in a fixed order, so the result does not depend on the number of
// threads.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/optim/param_group.h"

namespace nf::train {

struct AgcOptions {
  double clip = 0.01;  // 0 or less switches clipping off; norms are still measured
  double eps = 1e-3;   // floor of a unit's weight norm
};

// The units of a tensor: `count` consecutive blocks of `size` elements. The whole tensor is one
// unit when at most one dimension differs from 1 (biases, gains [C,1,1,1], scalars); otherwise one
// unit per output (first dimension).
struct AgcUnits {
  int64_t count = 1;
  int64_t size = 1;
};
AgcUnits agc_units(at::IntArrayRef shape);

// The factor of a unit's gradient: 1 unless its norm exceeds clip * max(norm of the weights, eps).
double clip_factor(double gradient_squares, double weight_squares, const AgcOptions& options);

// What clipping would do to one parameter.
struct UnitScales {
  double grad_squares = 0;          // sum of squares of the gradient
  double clipped_grad_squares = 0;  // the same after clipping
  int64_t units = 0;                // 0 where the role has no AGC
  int64_t clipped = 0;              // units with norm > threshold
  std::vector<double> scale;        // factor of each unit's gradient; empty when nothing is clipped
};
UnitScales measure_units(const Param& param, const AgcOptions& options);

// Multiplies the gradient of each unit by its factor, in place.
void scale_units(const at::Tensor& grad, const UnitScales& scales);

struct AgcResult {
  int64_t units = 0;
  int64_t clipped = 0;
};
// Clips the gradients of all parameters that are not frozen and whose role has AGC, in place.
AgcResult clip_gradients(const std::vector<Param>& params, double clip, double eps = 1e-3);

}  // namespace nf::train

// Sharpness-aware minimization: the gradient is taken at weights that were moved a little uphill.
// One perturbation per micro-batch, from the gradient of its first examples, never reduced over
// ranks: so the result does not depend on the number of ranks (nfnet_spec.md section 9; Foret et
// al., arXiv 2010.01412; ASAM: Kwon et al., arXiv 2102.11600).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "trainer/optim/param_group.h"

namespace nf::train {

struct SamOptions {
  double rho = 0;         // length of the move; 0: off
  double fraction = 0.2;  // part of a micro-batch whose gradient points uphill
  bool adaptive = false;  // ASAM: the move of each weight is scaled by the weight's square
};

// How many examples of a micro-batch of `count` make the ascent gradient: the first round(fraction
// x count), at least one.
int64_t ascent_count(double fraction, int64_t count);

class Sam {
 public:
  // weights: the flat arena (layout) that the parameters' values are views of.
  Sam(const std::vector<Param>& params, const FlatLayout& layout, const at::Tensor& weights,
      const SamOptions& options);

  bool on() const { return options_.rho > 0; }
  int64_t ascent_count(int64_t count) const {
    return train::ascent_count(options_.fraction, count);
  }
  // Where the ascent gradient goes (flat, laid out as the weights; any positive multiple of it).
  const at::Tensor& gradient() const { return gradient_; }

  // W <- W + rho g / ||g||, or with `adaptive` W + rho W^2 g / || |W| g ||; the norm is over all
  // trained parameters together, in float64. A zero gradient moves nothing.
  void perturb();
  // The weights as they were before perturb(), to the bit.
  void restore();

 private:
  SamOptions options_;
  std::vector<at::Tensor> values_, gradients_;  // of the trained parameters, views
  at::Tensor weights_, gradient_, copy_;
};

}  // namespace nf::train

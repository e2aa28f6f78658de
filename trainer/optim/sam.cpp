// See sam.h.
#include "trainer/optim/sam.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "trainer/optim/kernels.h"

namespace nf::train {

int64_t ascent_count(double fraction, int64_t count) {
  const auto part = std::llround(fraction * static_cast<double>(count));
  return std::clamp<int64_t>(part, 1, count);
}

Sam::Sam(const std::vector<Param>& params, const FlatLayout& layout, const at::Tensor& weights,
         const SamOptions& options)
    : options_(options), weights_(weights) {
  if (!on()) return;
  gradient_ = layout.make_arena(weights.options().requires_grad(false));
  copy_ = layout.make_arena(weights.options().requires_grad(false));
  for (size_t i = 0; i < params.size(); ++i) {
    if (params[i].frozen) continue;
    values_.push_back(params[i].value);
    gradients_.push_back(layout.view(gradient_, i));
  }
}

void Sam::perturb() {
  const at::NoGradGuard no_grad;
  copy_.copy_(weights_);
  double squares = 0;
  for (size_t i = 0; i < values_.size(); ++i) {
    if (options_.adaptive) {
      // || |W| g ||, and then the move W^2 g.
      gradients_[i].mul_(values_[i].detach());
      squares += kernels::unit_squares(gradients_[i], 1)[0];
      gradients_[i].mul_(values_[i].detach());
    } else {
      squares += kernels::unit_squares(gradients_[i], 1)[0];
    }
  }
  if (squares == 0) return;
  const double scale = options_.rho / std::sqrt(squares);
  for (size_t i = 0; i < values_.size(); ++i) values_[i].detach().add_(gradients_[i], scale);
}

void Sam::restore() {
  const at::NoGradGuard no_grad;
  weights_.copy_(copy_);
}

}  // namespace nf::train

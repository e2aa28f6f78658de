// See ema.h.
#include "trainer/optim/ema.h"

#include <ATen/core/grad_mode.h>

#include <utility>

#include "core/check.h"
#include "trainer/optim/schedule.h"

namespace nf::train {

Ema::Ema(std::vector<Param> params, double max_decay, const at::Tensor& arena)
    : params_(std::move(params)), max_decay_(max_decay) {
  NF_CHECK(!params_.empty() && max_decay_ >= 0 && max_decay_ <= 1,
           "an average needs parameters and a decay in [0, 1]");
  const at::NoGradGuard no_grad;
  const FlatLayout layout = layout_of(params_);
  arena_ = arena.defined()
               ? arena
               : layout.make_arena(params_.front().value.options().requires_grad(false));
  values_ = layout.views(arena_);
  if (!arena.defined()) restart();
}

void Ema::restart() {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < params_.size(); ++i) values_[i].copy_(params_[i].value);
}

double Ema::weight(uint64_t t) const { return 1.0 - ema_decay(max_decay_, t); }

}  // namespace nf::train

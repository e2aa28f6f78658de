// See sgd.h.
#include "trainer/optim/sgd.h"

#include <cmath>
#include <utility>

#include "core/check.h"
#include "trainer/optim/kernels.h"

namespace nf::train {

Sgd::Sgd(std::vector<Param> params, SgdOptions options)
    : params_(std::move(params)), options_(options), layout_(layout_of(params_)) {
  NF_CHECK(!params_.empty(), "an optimizer needs parameters");
  const at::TensorOptions type = params_.front().value.options().requires_grad(false);
  for (const Param& p : params_)
    NF_CHECK(p.value.is_contiguous() && p.value.scalar_type() == type.dtype().toScalarType() &&
                 p.value.device() == type.device(),
             p.name + " differs from the other parameters in type, device or layout");
  momentum_arena_ = layout_.make_arena(type);
  momentum_ = layout_.views(momentum_arena_);
}

StepStats Sgd::step(double lr) {
  const at::NoGradGuard no_grad;
  StepStats stats;
  double squares = 0, clipped_squares = 0;
  std::vector<UnitScales> scales(params_.size());
  for (size_t i = 0; i < params_.size(); ++i) {
    if (params_[i].frozen) continue;
    scales[i] = measure_units(params_[i], options_.agc);
    if (!std::isfinite(scales[i].grad_squares) && stats.finite) {
      stats.finite = false;
      stats.first_non_finite = params_[i].name;
    }
    squares += scales[i].grad_squares;
    clipped_squares += scales[i].clipped_grad_squares;
    stats.units += scales[i].units;
    stats.clipped += scales[i].clipped;
  }
  stats.grad_norm = std::sqrt(squares);
  stats.grad_norm_after_agc = std::sqrt(clipped_squares);
  if (!stats.finite) return stats;

  for (size_t i = 0; i < params_.size(); ++i) {
    const Param& p = params_[i];
    if (p.frozen) continue;
    kernels::sgd_update(p.value, p.grad, momentum_[i], scales[i].scale,
                        {.lr = lr * p.lr_scale,
                         .momentum = options_.momentum,
                         .weight_decay = has_weight_decay(p.role) ? options_.weight_decay : 0.0,
                         .nesterov = options_.nesterov});
  }
  return stats;
}

const at::Tensor& Sgd::momentum(const std::string& name) const {
  for (size_t i = 0; i < params_.size(); ++i)
    if (params_[i].name == name) return momentum_[i];
  NF_CHECK(false, "no parameter is named " + name);
  return momentum_.front();
}

}  // namespace nf::train

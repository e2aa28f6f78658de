// See sgd.h.
#include "trainer/optim/sgd.h"

#include <cmath>
#include <utility>

#include "core/check.h"
#include "trainer/optim/ema.h"
#include "trainer/optim/kernels.h"
#include "trainer/optim/update_pass.h"

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

StepStats Sgd::step(const Update& u) {
  NF_CHECK(static_cast<size_t>(u.gradient.numel()) >= layout_.elements(), "a flat gradient");
  return apply(u, layout_.views(u.gradient.to(params_.front().value.device())));
}

StepStats Sgd::step(double lr) {
  std::vector<at::Tensor> gradients;
  for (const Param& p : params_) gradients.push_back(p.grad);
  return apply({.lr = lr}, gradients);
}

StepStats Sgd::apply(const Update& u, const std::vector<at::Tensor>& gradients) {
  const at::NoGradGuard no_grad;
  if (params_.front().value.is_cpu()) return apply_fused(u, gradients);
  StepStats stats = apply_composed(u, gradients);
  if (stats.finite && u.average) u.average->update(u.index);
  return stats;
}

StepStats Sgd::apply_fused(const Update& u, const std::vector<at::Tensor>& gradients) {
  std::vector<UpdateTensor> tensors;
  std::vector<size_t> index;
  for (size_t i = 0; i < params_.size(); ++i) {
    const Param& p = params_[i];
    if (p.frozen) continue;
    tensors.push_back({.value = p.value.detach(),
                       .gradient = gradients[i],
                       .momentum = momentum_[i],
                       .average = u.average ? u.average->values()[i] : at::Tensor(),
                       .clipped = has_agc(p.role),
                       .lr = u.lr * p.lr_scale,
                       .weight_decay = has_weight_decay(p.role) ? options_.weight_decay : 0.0});
    index.push_back(i);
  }
  const UpdateResult r =
      update_pass(tensors, {.gradient_scale = u.scale,
                            .momentum = options_.momentum,
                            .nesterov = options_.nesterov,
                            .agc = options_.agc,
                            .average_weight = u.average ? u.average->weight(u.index) : 0.0});
  StepStats stats;
  stats.finite = r.not_finite < 0;
  if (!stats.finite)
    stats.first_non_finite = params_[index[static_cast<size_t>(r.not_finite)]].name;
  stats.grad_norm = std::sqrt(r.grad_squares);
  stats.grad_norm_after_agc = std::sqrt(r.clipped_grad_squares);
  stats.units = r.units;
  stats.clipped = r.clipped;
  return stats;
}

StepStats Sgd::apply_composed(const Update& u, const std::vector<at::Tensor>& gradients) {
  StepStats stats;
  double squares = 0, clipped_squares = 0;
  std::vector<UnitScales> scales(params_.size());
  std::vector<Param> scaled = params_;
  for (size_t i = 0; i < params_.size(); ++i) {
    if (params_[i].frozen) continue;
    scaled[i].grad = u.scale == 1 ? gradients[i] : gradients[i] * u.scale;
    scales[i] = measure_units(scaled[i], options_.agc);
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
    const Param& p = scaled[i];
    if (p.frozen) continue;
    kernels::sgd_update(p.value, p.grad, momentum_[i], scales[i].scale,
                        {.lr = u.lr * p.lr_scale,
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

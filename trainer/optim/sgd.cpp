// See sgd.h.
#include "trainer/optim/sgd.h"

#include <ATen/core/grad_mode.h>

#include <cmath>
#include <utility>

#include "core/check.h"
#include "trainer/optim/ema.h"
#include "trainer/optim/update_pass.h"

namespace nf::train {

Sgd::Sgd(std::vector<Param> params, SgdOptions options, const at::Tensor& momentum)
    : params_(std::move(params)), options_(options), layout_(layout_of(params_)) {
  NF_CHECK(!params_.empty(), "an optimizer needs parameters");
  const at::TensorOptions type = params_.front().value.options().requires_grad(false);
  for (const Param& p : params_)
    NF_CHECK(p.value.is_contiguous() && p.value.scalar_type() == type.dtype().toScalarType() &&
                 p.value.device() == type.device(),
             p.name + " differs from the other parameters in type, device or layout");
  momentum_arena_ = momentum.defined() ? momentum : layout_.make_arena(type);
  momentum_ = layout_.views(momentum_arena_);
}

void Sgd::use_device(FusedUpdateLaunch launch) {
  device_update_ = std::make_unique<ArenaUpdate>(params_, layout_, options_, std::move(launch));
}

StepStats Sgd::step(const Update& u) {
  NF_CHECK(static_cast<size_t>(u.gradient.numel()) >= layout_.elements(), "a flat gradient");
  const at::AutoDispatchBelowADInplaceOrView below_autograd;  // hundreds of views
  const at::Tensor gradient = u.gradient.to(params_.front().value.device());
  return device_update_ ? on_device(u, gradient) : on_cpu(u, layout_.views(gradient));
}

StepStats Sgd::step(double lr) {
  std::vector<at::Tensor> gradients;
  for (const Param& p : params_) gradients.push_back(p.grad);
  return on_cpu({.lr = lr}, gradients);
}

StepStats Sgd::on_cpu(const Update& u, const std::vector<at::Tensor>& gradients) {
  const at::NoGradGuard no_grad;
  std::vector<UpdateTensor> tensors;
  std::vector<size_t> index;
  for (size_t i = 0; i < params_.size(); ++i) {
    const Param& p = params_[i];
    if (p.frozen) continue;
    tensors.push_back({.value = p.value,
                       .gradient = gradients[i],
                       .momentum = momentum_[i],
                       .average = u.average ? u.average->values()[i] : at::Tensor(),
                       .clipped = has_agc(p.role),
                       .lr = u.lr * p.lr_scale,
                       .weight_decay = has_weight_decay(p.role) ? options_.weight_decay : 0.0});
    index.push_back(i);
  }
  const UpdateResult r =
      update_pass(tensors,
                  {.gradient_scale = u.scale,
                   .finite = u.finite,
                   .momentum = options_.momentum,
                   .nesterov = options_.nesterov,
                   .agc = options_.agc,
                   .average_weight = u.average ? u.average->weight(u.index) : 0.0},
                  share_ ? &*share_ : nullptr);
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

StepStats Sgd::on_device(const Update& u, const at::Tensor& gradient) {
  const UpdateTotals t =
      device_update_->run(gradient, momentum_arena_, u.average ? u.average->arena() : at::Tensor(),
                          {.gradient_scale = u.scale,
                           .lr = u.lr,
                           .momentum = options_.momentum,
                           .average_weight = u.average ? u.average->weight(u.index) : 0.0,
                           .clip = options_.agc.clip,
                           .clip_eps = options_.agc.eps,
                           .nesterov = options_.nesterov});
  StepStats stats;
  stats.grad_norm = std::sqrt(t.grad_squares);
  stats.grad_norm_after_agc = std::sqrt(t.clipped_grad_squares);
  stats.units = t.units;
  stats.clipped = t.clipped;
  stats.finite = t.first_not_finite < 0;
  if (!stats.finite) stats.first_non_finite = params_[static_cast<size_t>(t.first_not_finite)].name;
  return stats;
}

const at::Tensor& Sgd::momentum(const std::string& name) const {
  for (size_t i = 0; i < params_.size(); ++i)
    if (params_[i].name == name) return momentum_[i];
  NF_CHECK(false, "no parameter is named " + name);
  return momentum_.front();
}

}  // namespace nf::train

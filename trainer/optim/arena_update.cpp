// See arena_update.h.
#include "trainer/optim/arena_update.h"

#include <cstring>
#include <span>
#include <utility>

#include "core/check.h"
#include "trainer/optim/agc.h"
#include "trainer/optim/sgd.h"

namespace nf::train {
namespace {

// What lies at `from`, as bytes in the host's memory.
template <class T>
at::Tensor bytes_of(std::span<const T> from) {
  at::Tensor out = at::empty({static_cast<int64_t>(from.size_bytes())}, at::kByte);
  if (!from.empty()) std::memcpy(out.mutable_data_ptr(), from.data(), from.size_bytes());
  return out;
}

template <class T>
T* as(const at::Tensor& bytes) {
  return static_cast<T*>(bytes.data_ptr());
}

std::vector<UpdateUnit> units_of(const std::vector<Param>& params, const FlatLayout& layout,
                                 const SgdOptions& options) {
  std::vector<UpdateUnit> units;
  for (size_t i = 0; i < params.size(); ++i) {
    const Param& p = params[i];
    const AgcUnits split = agc_units(p.value.sizes());
    for (int64_t u = 0; u < split.count; ++u)
      units.push_back({.begin = static_cast<int64_t>(layout.offset(i)) + u * split.size,
                       .size = split.size,
                       .parameter = static_cast<int32_t>(i),
                       .clipped = has_agc(p.role),
                       .frozen = p.frozen,
                       .weight_decay = has_weight_decay(p.role) ? options.weight_decay : 0.0,
                       .lr_scale = p.lr_scale});
  }
  return units;
}

}  // namespace

ArenaUpdate::ArenaUpdate(const std::vector<Param>& params, const FlatLayout& layout,
                         const SgdOptions& options, FusedUpdateLaunch launch)
    : launch_(std::move(launch)), elements_(static_cast<int64_t>(layout.elements())) {
  const at::Tensor& first = params.front().value;
  NF_CHECK(launch_ && first.scalar_type() == at::kFloat, "float32 weights and a device's update");
  weights_ = first.data_ptr<float>() - layout.offset(0);
  for (size_t i = 0; i < params.size(); ++i)
    NF_CHECK(params[i].value.data_ptr<float>() == weights_ + layout.offset(i),
             params[i].name + " does not lie in the arena of the weights");
  const std::vector<UpdateUnit> units = units_of(params, layout, options);
  count_ = static_cast<int64_t>(units.size());
  units_ = bytes_of(std::span<const UpdateUnit>(units)).to(first.device());
  const auto space = [&](size_t bytes) {
    return at::zeros({static_cast<int64_t>(bytes)}, units_.options());
  };
  rates_ = space(sizeof(UpdateRates));
  state_ = space(units.size() * sizeof(UpdateUnitState));
  totals_ = space(sizeof(UpdateTotals));
}

UpdateTotals ArenaUpdate::run(const at::Tensor& gradient, const at::Tensor& momentum,
                              const at::Tensor& average, const UpdateRates& rates) {
  for (const at::Tensor* x : {&gradient, &momentum, &average})
    NF_CHECK((x == &average && !x->defined()) ||
                 (x->is_contiguous() && x->scalar_type() == at::kFloat &&
                  x->device() == units_.device() && x->numel() >= elements_),
             "a flat buffer of another length, type, device or layout than the weights");
  rates_.copy_(bytes_of(std::span(&rates, 1)));
  launch_({.arenas = {.weight = weights_,
                      .grad = gradient.const_data_ptr<float>(),
                      .momentum = momentum.data_ptr<float>(),
                      .average = average.defined() ? average.data_ptr<float>() : nullptr},
           .units = as<UpdateUnit>(units_),
           .count = count_,
           .rates = as<UpdateRates>(rates_),
           .state = as<UpdateUnitState>(state_),
           .totals = as<UpdateTotals>(totals_)});
  const at::Tensor host = totals_.to(at::kCPU);
  UpdateTotals out;
  std::memcpy(&out, host.const_data_ptr(), sizeof out);
  return out;
}

}  // namespace nf::train

// See agc.h.
#include "trainer/optim/agc.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.h"
#include "trainer/optim/kernels.h"

namespace nf::train {

AgcUnits agc_units(at::IntArrayRef shape) {
  const int64_t elements =
      std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  const auto wide = std::count_if(shape.begin(), shape.end(), [](int64_t n) { return n != 1; });
  if (wide <= 1 || elements == 0) return {1, elements};
  return {shape[0], elements / shape[0]};
}

double clip_factor(double gradient_squares, double weight_squares, const AgcOptions& options) {
  const double norm = std::sqrt(gradient_squares);
  const double limit = options.clip * std::max(std::sqrt(weight_squares), options.eps);
  return norm > limit ? limit / std::max(norm, 1e-6) : 1.0;
}

UnitScales measure_units(const Param& param, const AgcOptions& options) {
  NF_CHECK(param.grad.defined() && param.grad.sizes() == param.value.sizes(),
           "gradient of " + param.name + " is missing or of another shape");
  const AgcUnits units = agc_units(param.value.sizes());
  const std::vector<double> grad = kernels::unit_squares(param.grad, units.count);
  UnitScales out;
  out.grad_squares = std::accumulate(grad.begin(), grad.end(), 0.0);
  out.clipped_grad_squares = out.grad_squares;
  if (options.clip <= 0 || !has_agc(param.role)) return out;

  out.units = units.count;
  out.clipped_grad_squares = 0;
  const std::vector<double> weight = kernels::unit_squares(param.value, units.count);
  for (size_t u = 0; u < grad.size(); ++u) {
    const double factor = clip_factor(grad[u], weight[u], options);
    if (factor != 1.0) {
      if (out.scale.empty()) out.scale.assign(grad.size(), 1.0);
      out.scale[u] = factor;
      ++out.clipped;
    }
    out.clipped_grad_squares += factor * factor * grad[u];
  }
  return out;
}

void scale_units(const at::Tensor& grad, const UnitScales& scales) {
  if (!scales.scale.empty()) kernels::scale_blocks(grad, scales.scale);
}

AgcResult clip_gradients(const std::vector<Param>& params, double clip, double eps) {
  AgcResult result;
  for (const Param& p : params) {
    if (p.frozen || !has_agc(p.role)) continue;
    const UnitScales scales = measure_units(p, {.clip = clip, .eps = eps});
    scale_units(p.grad, scales);
    result.units += scales.units;
    result.clipped += scales.clipped;
  }
  return result;
}

}  // namespace nf::train

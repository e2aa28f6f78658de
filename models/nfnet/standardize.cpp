// Scaled weight standardization (nfnet_spec.md section 3). With x = W - mean, q = sum(x^2) and a
// per-output `inv`,
//   W_hat = scale * gain * inv * x,   dm: inv = 1 / sqrt(max(q, 1e-4)),   timm: inv = 1 / sqrt(q +
//   N * 1e-5),
// so d inv / d x = -x inv^3 in both (0 below dm's floor), which gives the gradients, u = sum(dW_hat
// * x):
//   dW = scale * gain * (inv * (dW_hat - mean(dW_hat)) - inv^3 * u * x),   dgain = scale * inv * u.
// Rows are independent and summed in one fixed order, so the number of threads cannot change a bit.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <cmath>

#include "core/check.h"
#include "models/nfnet/layers.h"

namespace nf::model {
namespace {

constexpr double kFloorDm = 1e-4;
constexpr double kEpsTimm = 1e-5;

// Sums over a row with eight partial sums that the compiler keeps in vector registers; always this
// order.
template <typename T, typename F>
double row_sum(int64_t n, F term) {
  constexpr int64_t kLanes = 8;
  std::array<T, kLanes> lanes{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) lanes[static_cast<size_t>(k)] += term(i + k);
  }
  double total = 0;
  for (const T lane : lanes) total += static_cast<double>(lane);
  for (; i < n; ++i) total += static_cast<double>(term(i));
  return total;
}

struct RowStatistics {
  double mean, inv;
  bool floored;  // dm's floor acts: inv is constant
};

template <typename T>
RowStatistics row_statistics(const T* w, int64_t n, Flavour flavour) {
  const double mean = row_sum<T>(n, [=](int64_t i) { return w[i]; }) / static_cast<double>(n);
  const T m = static_cast<T>(mean);
  const double q = row_sum<T>(n, [=](int64_t i) { return (w[i] - m) * (w[i] - m); });
  if (flavour == Flavour::kTimm) {
    return {mean, 1.0 / std::sqrt(q + static_cast<double>(n) * kEpsTimm), false};
  }
  return {mean, 1.0 / std::sqrt(std::max(q, kFloorDm)), q <= kFloorDm};
}

template <typename T>
void standardize_row(const T* w, T gain, int64_t n, Flavour flavour, double scale, T* out) {
  const RowStatistics s = row_statistics(w, n, flavour);
  const T mean = static_cast<T>(s.mean);
  const T factor = static_cast<T>(scale * static_cast<double>(gain) * s.inv);
  for (int64_t i = 0; i < n; ++i) out[i] = (w[i] - mean) * factor;
}

template <typename T>
void standardize_row_backward(const T* w, T gain, const T* grad, int64_t n, Flavour flavour,
                              double scale, T* grad_w, T* grad_gain) {
  const RowStatistics s = row_statistics(w, n, flavour);
  const T mean = static_cast<T>(s.mean);
  const double grad_mean =
      row_sum<T>(n, [=](int64_t i) { return grad[i]; }) / static_cast<double>(n);
  const double u = row_sum<T>(n, [=](int64_t i) { return grad[i] * (w[i] - mean); });
  const double factor = scale * static_cast<double>(gain) * s.inv;
  const T a = static_cast<T>(factor);
  const T b = static_cast<T>(s.floored ? 0.0 : factor * s.inv * s.inv * u);
  const T g = static_cast<T>(grad_mean);
  for (int64_t i = 0; i < n; ++i) grad_w[i] = a * (grad[i] - g) - b * (w[i] - mean);
  *grad_gain = static_cast<T>(scale * s.inv * u);
}

// Rows per task: enough work to be worth a thread.
int64_t row_grain(int64_t n) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, n)); }

class Standardize : public torch::autograd::Function<Standardize> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& weight,
                            const at::Tensor& gain, bool timm, double scale) {
    const at::Tensor w = weight.contiguous(), g = gain.contiguous();
    ctx->save_for_backward({w, g});
    ctx->saved_data["timm"] = timm;
    ctx->saved_data["scale"] = scale;
    const Flavour flavour = timm ? Flavour::kTimm : Flavour::kDm;
    at::Tensor out = at::empty_like(w);
    const int64_t rows = w.size(0), n = w.numel() / rows;
    AT_DISPATCH_FLOATING_TYPES(w.scalar_type(), "standardize", [&] {
      const scalar_t* const wp = w.const_data_ptr<scalar_t>();
      const scalar_t* const gp = g.const_data_ptr<scalar_t>();
      scalar_t* const op = out.mutable_data_ptr<scalar_t>();
      at::parallel_for(0, rows, row_grain(n), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          standardize_row(wp + r * n, gp[r], n, flavour, scale, op + r * n);
        }
      });
    });
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const torch::autograd::variable_list saved = ctx->get_saved_variables();
    const at::Tensor &w = saved[0], &g = saved[1];
    const at::Tensor grad = grads[0].contiguous();
    const Flavour flavour = ctx->saved_data["timm"].toBool() ? Flavour::kTimm : Flavour::kDm;
    const double scale = ctx->saved_data["scale"].toDouble();
    at::Tensor grad_w = at::empty_like(w), grad_g = at::empty_like(g);
    const int64_t rows = w.size(0), n = w.numel() / rows;
    AT_DISPATCH_FLOATING_TYPES(w.scalar_type(), "standardize_backward", [&] {
      const scalar_t* const wp = w.const_data_ptr<scalar_t>();
      const scalar_t* const gp = g.const_data_ptr<scalar_t>();
      const scalar_t* const dp = grad.const_data_ptr<scalar_t>();
      scalar_t* const gw = grad_w.mutable_data_ptr<scalar_t>();
      scalar_t* const gg = grad_g.mutable_data_ptr<scalar_t>();
      at::parallel_for(0, rows, row_grain(n), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          standardize_row_backward(wp + r * n, gp[r], dp + r * n, n, flavour, scale, gw + r * n,
                                   gg + r);
        }
      });
    });
    return {grad_w, grad_g, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor standardize_composed(const at::Tensor& weight, const at::Tensor& gain, Flavour flavour,
                                double scale) {
  const auto n = static_cast<double>(weight.numel() / weight.size(0));
  const at::Tensor x = weight - weight.mean({1, 2, 3}, /*keepdim=*/true);
  const at::Tensor q = x.square().sum({1, 2, 3}, /*keepdim=*/true);
  const at::Tensor inv =
      flavour == Flavour::kDm ? q.clamp_min(kFloorDm).rsqrt() : (q + n * kEpsTimm).rsqrt();
  return x * (inv * gain * scale);
}

at::Tensor standardize(const at::Tensor& weight, const at::Tensor& gain, Flavour flavour,
                       double scale) {
  NF_CHECK(weight.dim() == 4 && gain.numel() == weight.size(0));
  NF_CHECK(weight.scalar_type() == gain.scalar_type());
  if (!weight.is_cpu()) return standardize_composed(weight, gain, flavour, scale);
  return Standardize::apply(weight, gain, flavour == Flavour::kTimm, scale);
}

}  // namespace nf::model

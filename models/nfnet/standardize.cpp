// Scaled weight standardization (nfnet_spec.md section 3). With x = W - mean, q = sum(x^2) and a
// per-output `inv`,
//   W_hat = scale * gain * inv * x,   dm: inv = 1 / sqrt(max(q, 1e-4)),   timm: inv = 1 / sqrt(q +
//   N * 1e-5),
// so d inv / d x = -x inv^3 in both (0 below dm's floor), which gives the gradients, u = sum(dW_hat
// * x):
//   dW = scale * gain * (inv * (dW_hat - mean(dW_hat)) - inv^3 * u * x),   dgain = scale * inv * u.
// Rows are independent and summed in one fixed order, so the number of threads cannot change a bit.
//
// On the CPU W_hat lies in NHWC like the images, and a gradient in NHWC is read as it is: a 3x3
// convolution would copy W_hat in each pass, and its gradient would be copied back, element by
// element. Here a row is rearranged while it is in the first-level cache.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/vector_loop.h"
#include "models/nfnet/elements.h"
#include "models/nfnet/layers.h"
#include "models/nfnet/operators.h"
#include "models/nfnet/shared_for.h"

namespace nf::model {
namespace {

constexpr double kFloorDm = 1e-4;
constexpr double kEpsTimm = 1e-5;

// Sums over a row with 32 partial sums that the compiler keeps in vector registers; always this
// order.
template <typename T>
class RowSum {
 public:
  static constexpr int64_t kLanes = 32;
  template <typename F>
  [[gnu::always_inline]] void add(int64_t i, const F& term) {
    for (int64_t k = 0; k < kLanes; ++k) lanes_[k] += term(i + k);
  }
  // With the terms from `begin` on, fewer than 32.
  template <typename F>
  [[gnu::always_inline]] double total(int64_t begin, int64_t n, const F& term) const {
    double total = 0;
    for (const T lane : lanes_) total += static_cast<double>(lane);
    for (int64_t i = begin; i < n; ++i) total += static_cast<double>(term(i));
    return total;
  }

 private:
  T lanes_[kLanes] = {};
};

template <typename T, typename F>
[[gnu::always_inline]] inline double row_sum(int64_t n, F term) {
  RowSum<T> sum;
  int64_t i = 0;
  for (; i + RowSum<T>::kLanes <= n; i += RowSum<T>::kLanes) sum.add(i, term);
  return sum.total(i, n, term);
}

// Two sums in one pass.
template <typename T, typename F, typename G>
[[gnu::always_inline]] inline std::pair<double, double> row_sums(int64_t n, F first, G second) {
  RowSum<T> one, other;
  int64_t i = 0;
  for (; i + RowSum<T>::kLanes <= n; i += RowSum<T>::kLanes) {
    one.add(i, first);
    other.add(i, second);
  }
  return {one.total(i, n, first), other.total(i, n, second)};
}

struct RowStatistics {
  double mean, inv;
  bool floored;  // dm's floor acts: inv is constant
};

template <typename T>
[[gnu::always_inline]] inline RowStatistics row_statistics(const T* w, int64_t n, Flavour flavour) {
  const double mean =
      row_sum<T>(n, [=](int64_t i) NF_INLINE { return w[i]; }) / static_cast<double>(n);
  const T m = static_cast<T>(mean);
  const double q = row_sum<T>(n, [=](int64_t i) NF_INLINE { return (w[i] - m) * (w[i] - m); });
  if (flavour == Flavour::kTimm) {
    return {mean, 1.0 / std::sqrt(q + static_cast<double>(n) * kEpsTimm), false};
  }
  return {mean, 1.0 / std::sqrt(std::max(q, kFloorDm)), q <= kFloorDm};
}

template <typename T, typename Out>
[[gnu::always_inline]] inline void standardize_row(const T* w, T gain, int64_t n, Flavour flavour,
                                                   double scale, Out* out) {
  const RowStatistics s = row_statistics(w, n, flavour);
  const T mean = static_cast<T>(s.mean);
  const T factor = static_cast<T>(scale * static_cast<double>(gain) * s.inv);
  for (int64_t i = 0; i < n; ++i) store(out[i], (w[i] - mean) * factor);
}

template <typename T, typename Grad>
[[gnu::always_inline]] inline void standardize_row_backward(const T* w, T gain, const Grad* grad,
                                                            int64_t n, Flavour flavour,
                                                            double scale, T* grad_w, T* grad_gain) {
  const RowStatistics s = row_statistics(w, n, flavour);
  const T mean = static_cast<T>(s.mean);
  const auto [grad_sum, u] = row_sums<T>(
      n, [=](int64_t i) NF_INLINE { return load(grad[i]); },
      [=](int64_t i) NF_INLINE { return load(grad[i]) * (w[i] - mean); });
  const double factor = scale * static_cast<double>(gain) * s.inv;
  const T a = static_cast<T>(factor);
  const T b = static_cast<T>(s.floored ? 0.0 : factor * s.inv * s.inv * u);
  const T g = static_cast<T>(grad_sum / static_cast<double>(n));
  constexpr T kLargest = std::numeric_limits<T>::max();
  int not_finite = 0;
  for (int64_t i = 0; i < n; ++i) {
    const T d = a * (load(grad[i]) - g) - b * (w[i] - mean);
    grad_w[i] = d;
    not_finite |= std::abs(d) <= kLargest ? 0 : 1;
  }
  *grad_gain = not_finite ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(scale * s.inv * u);
}

// from [rows, columns] -> to [columns, rows].
template <typename T>
void transpose(const T* from, int64_t rows, int64_t columns, T* to) {
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < rows; ++r) *to++ = from[r * columns + c];
}

// A weight [O, I, H, W] as O rows of I channels and H W taps.
struct WeightShape {
  explicit WeightShape(const at::Tensor& w)
      : rows(w.size(0)), channels(w.size(1)), taps(w.size(2) * w.size(3)), n(channels * taps) {}
  int64_t rows, channels, taps, n;
};

// Rows per task: enough work to be worth a thread.
int64_t row_grain(int64_t n) { return std::max<int64_t>(1, 4096 / std::max<int64_t>(1, n)); }

// Calls body with null pointers of the weights' type, float or double, and of the type of `other`,
// which is the same or, beside float, bfloat16.
template <class Body>
void with_types(const at::Tensor& weight, at::ScalarType other, const Body& body) {
  if (weight.scalar_type() == at::kDouble) {
    NF_CHECK(other == at::kDouble, "standardized float64 weights stay float64");
    return body(static_cast<double*>(nullptr), static_cast<double*>(nullptr));
  }
  NF_CHECK(weight.scalar_type() == at::kFloat && (other == at::kFloat || other == at::kBFloat16));
  if (other == at::kFloat) return body(static_cast<float*>(nullptr), static_cast<float*>(nullptr));
  body(static_cast<float*>(nullptr), static_cast<uint16_t*>(nullptr));
}

at::Tensor standardize_cpu(const at::Tensor& w, const at::Tensor& gain, bool timm, double scale,
                           at::ScalarType type) {
  const Flavour flavour = timm ? Flavour::kTimm : Flavour::kDm;
  at::Tensor out =
      at::empty_like(w, w.options().dtype(type).memory_format(at::MemoryFormat::ChannelsLast));
  const WeightShape shape(w);
  with_types(w, type, [&](auto* of_weight, auto* of_out) {
    using T = std::remove_pointer_t<decltype(of_weight)>;
    using Out = std::remove_pointer_t<decltype(of_out)>;
    const T* const wp = w.const_data_ptr<T>();
    const T* const gp = gain.const_data_ptr<T>();
    Out* const op = static_cast<Out*>(out.mutable_data_ptr());
    const int64_t n = shape.n;
    shared_for(shape.rows, row_grain(n), [&](int64_t begin, int64_t end) {
      std::vector<Out> row(shape.taps > 1 ? static_cast<size_t>(n) : 0);
      for (int64_t r = begin; r < end; ++r) {
        Out* const to = row.empty() ? op + r * n : row.data();
        vector_loop([=]() NF_INLINE { standardize_row(wp + r * n, gp[r], n, flavour, scale, to); });
        if (!row.empty()) transpose(row.data(), shape.channels, shape.taps, op + r * n);
      }
    });
  });
  return out;
}

void standardize_backward_cpu(const at::Tensor& w, const at::Tensor& gain, const at::Tensor& grad,
                              bool timm, double scale, const at::Tensor& grad_w,
                              const at::Tensor& grad_g) {
  const Flavour flavour = timm ? Flavour::kTimm : Flavour::kDm;
  const WeightShape shape(w);
  with_types(w, grad.scalar_type(), [&](auto* of_weight, auto* of_grad) {
    using T = std::remove_pointer_t<decltype(of_weight)>;
    using Grad = std::remove_pointer_t<decltype(of_grad)>;
    const T* const wp = w.const_data_ptr<T>();
    const T* const gp = gain.const_data_ptr<T>();
    const Grad* const dp = static_cast<const Grad*>(grad.const_data_ptr());
    T* const gw = grad_w.mutable_data_ptr<T>();
    T* const gg = grad_g.mutable_data_ptr<T>();
    const int64_t n = shape.n;
    shared_for(shape.rows, row_grain(n), [&](int64_t begin, int64_t end) {
      std::vector<Grad> row(grad.is_contiguous() ? 0 : static_cast<size_t>(n));
      for (int64_t r = begin; r < end; ++r) {
        const Grad* d = dp + r * n;
        if (!row.empty()) {
          transpose(d, shape.taps, shape.channels, row.data());
          d = row.data();
        }
        vector_loop([=]() NF_INLINE {
          standardize_row_backward(wp + r * n, gp[r], d, n, flavour, scale, gw + r * n, gg + r);
        });
      }
    });
  });
}

const auto& forward_operator() {
  using Forward = at::Tensor(const at::Tensor&, const at::Tensor&, bool, double, at::ScalarType);
  static const auto op = find_operator<Forward>("nfscale::standardize");
  return op;
}
const auto& backward_operator() {
  using Backward = void(const at::Tensor&, const at::Tensor&, const at::Tensor&, bool, double,
                        const at::Tensor&, const at::Tensor&);
  static const auto op = find_operator<Backward>("nfscale::standardize_backward");
  return op;
}

// The gradient in one of the two layouts that the kernels read.
at::Tensor readable(const at::Tensor& grad) {
  const bool as_it_is = grad.is_cpu() && grad.is_contiguous(at::MemoryFormat::ChannelsLast);
  return as_it_is ? grad : grad.contiguous();
}

class Standardize : public torch::autograd::Function<Standardize> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& weight,
                            const at::Tensor& gain, bool timm, double scale, at::ScalarType type) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor w = weight.contiguous(), g = gain.contiguous();
    ctx->save_for_backward({w, g});
    ctx->saved_data["timm"] = timm;
    ctx->saved_data["scale"] = scale;
    return forward_operator().call(w, g, timm, scale, type);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const torch::autograd::variable_list saved = ctx->get_saved_variables();
    const at::Tensor grad_w = at::empty_like(saved[0]), grad_g = at::empty_like(saved[1]);
    backward_operator().call(saved[0], saved[1], readable(grads[0]),
                             ctx->saved_data["timm"].toBool(), ctx->saved_data["scale"].toDouble(),
                             grad_w, grad_g);
    return {grad_w, grad_g, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

// weight and gain contiguous, of one type; grad contiguous, on the CPU in NCHW or NHWC.
TORCH_LIBRARY_FRAGMENT(nfscale, library) {
  library.def(
      "standardize(Tensor weight, Tensor gain, bool timm, float scale, ScalarType type) -> Tensor");
  library.def(
      "standardize_backward(Tensor weight, Tensor gain, Tensor grad, bool timm, float scale, "
      "Tensor(a!) grad_weight, Tensor(b!) grad_gain) -> ()");
}
TORCH_LIBRARY_IMPL(nfscale, CPU, library) {
  library.impl("standardize", standardize_cpu);
  library.impl("standardize_backward", standardize_backward_cpu);
}

at::Tensor standardize_composed(const at::Tensor& weight, const at::Tensor& gain, Flavour flavour,
                                double scale) {
  const int64_t row = weight.numel() / weight.size(0);
  const auto n = static_cast<double>(row);
  const at::Tensor x = weight - weight.mean({1, 2, 3}, /*keepdim=*/true);
  const at::Tensor q = x.square().sum({1, 2, 3}, /*keepdim=*/true);
  const at::Tensor inv =
      flavour == Flavour::kDm ? q.clamp_min(kFloorDm).rsqrt() : (q + n * kEpsTimm).rsqrt();
  return x * (inv * gain * scale);
}

at::Tensor standardize(const at::Tensor& weight, const at::Tensor& gain, Flavour flavour,
                       double scale, at::ScalarType type) {
  NF_CHECK(weight.dim() == 4 && gain.numel() == weight.size(0));
  NF_CHECK(weight.scalar_type() == gain.scalar_type());
  if (type == at::ScalarType::Undefined) type = weight.scalar_type();
  if (!has_kernel(forward_operator(), weight))
    return standardize_composed(weight, gain, flavour, scale).to(type);
  return Standardize::apply(weight, gain, flavour == Flavour::kTimm, scale, type);
}

void standardize_backward(const at::Tensor& weight, const at::Tensor& gain, const at::Tensor& grad,
                          Flavour flavour, double scale, const at::Tensor& grad_weight,
                          const at::Tensor& grad_gain) {
  NF_CHECK(weight.is_contiguous() && grad_weight.is_contiguous() &&
           grad_weight.sizes() == weight.sizes() && grad_gain.sizes() == gain.sizes());
  const at::NoGradGuard no_grad;
  if (has_kernel(forward_operator(), weight)) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    backward_operator().call(weight, gain, readable(grad), flavour == Flavour::kTimm, scale,
                             grad_weight, grad_gain);
    return;
  }
  const at::Tensor w = weight.detach().set_requires_grad(true);
  const at::Tensor g = gain.detach().set_requires_grad(true);
  torch::autograd::variable_list found;
  {
    const at::AutoGradMode on(true);
    found = torch::autograd::grad({standardize_composed(w, g, flavour, scale)}, {w, g},
                                  {grad.to(w.scalar_type())});
  }
  grad_weight.copy_(found[0]);
  grad_gain.copy_(found[1]);
}

}  // namespace nf::model

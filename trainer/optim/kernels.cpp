// See kernels.h. The loops run in float32 or float64, whichever the tensors have; factors are
// rounded to that type once.
#include "trainer/optim/kernels.h"

#include <array>

#include "core/check.h"

namespace nf::train::kernels {
namespace {

// Calls body with a value of the tensor's element type.
template <class Body>
void with_element_type(const at::Tensor& tensor, const Body& body) {
  if (tensor.scalar_type() == at::kFloat) return body(float{});
  NF_CHECK(tensor.scalar_type() == at::kDouble, "parameters are float32 or float64");
  body(double{});
}

template <class T>
double sum_of_squares(const T* x, int64_t n) {
  // Eight independent sums: the compiler may use vectors, the order stays fixed.
  std::array<double, 8> lane{};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (size_t k = 0; k < 8; ++k) {
      const double v = x[i + static_cast<int64_t>(k)];
      lane[k] += v * v;
    }
  for (size_t k = 0; i < n; ++i, ++k) lane[k] += static_cast<double>(x[i]) * x[i];
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

template <class T>
void update_block(T* __restrict w, const T* __restrict g, T* __restrict m, int64_t n, double factor,
                  const SgdUpdate& u) {
  const T scale = static_cast<T>(factor), decay = static_cast<T>(u.weight_decay);
  const T momentum = static_cast<T>(u.momentum), lr = static_cast<T>(u.lr);
  if (u.nesterov) {
    for (int64_t i = 0; i < n; ++i) {
      const T d = scale * g[i] + decay * w[i];
      m[i] = momentum * m[i] + d;
      w[i] -= lr * (d + momentum * m[i]);
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      m[i] = momentum * m[i] + (scale * g[i] + decay * w[i]);
      w[i] -= lr * m[i];
    }
  }
}

void check_like(const at::Tensor& a, const at::Tensor& b) {
  NF_CHECK(a.is_contiguous() && b.is_contiguous() && a.numel() == b.numel() &&
               a.scalar_type() == b.scalar_type() && a.device() == b.device(),
           "tensors of one parameter differ in size, type, device or layout");
}

int64_t block_length(const at::Tensor& tensor, size_t blocks) {
  const auto count = static_cast<int64_t>(blocks);
  NF_CHECK(count > 0 && tensor.is_contiguous() && tensor.numel() % count == 0,
           "a tensor does not divide into its units");
  return tensor.numel() / count;
}

// [units, 1] factors beside a [units, size] view of the tensor.
at::Tensor factors_like(const at::Tensor& tensor, std::span<const double> scale) {
  const auto host = at::empty({static_cast<int64_t>(scale.size()), 1}, at::kDouble);
  std::copy(scale.begin(), scale.end(), host.data_ptr<double>());
  return host.to(tensor.options());
}

}  // namespace

std::vector<double> unit_squares_cpu(const at::Tensor& tensor, int64_t units) {
  const int64_t length = block_length(tensor, static_cast<size_t>(units));
  std::vector<double> out(static_cast<size_t>(units));
  with_element_type(tensor, [&](auto type) {
    const auto* x = tensor.const_data_ptr<decltype(type)>();
    for (int64_t u = 0; u < units; ++u)
      out[static_cast<size_t>(u)] = sum_of_squares(x + u * length, length);
  });
  return out;
}

std::vector<double> unit_squares_aten(const at::Tensor& tensor, int64_t units) {
  const int64_t length = block_length(tensor, static_cast<size_t>(units));
  const auto sums =
      tensor.view({units, length}).to(at::kDouble).square().sum(1).to(at::kCPU).contiguous();
  const auto* begin = sums.const_data_ptr<double>();
  return {begin, begin + units};
}

void scale_blocks_cpu(const at::Tensor& tensor, std::span<const double> scale) {
  const int64_t length = block_length(tensor, scale.size());
  with_element_type(tensor, [&](auto type) {
    using T = decltype(type);
    T* x = tensor.data_ptr<T>();
    for (const double factor : scale) {
      const T f = static_cast<T>(factor);
      for (int64_t i = 0; i < length; ++i) x[i] *= f;
      x += length;
    }
  });
}

void scale_blocks_aten(const at::Tensor& tensor, std::span<const double> scale) {
  const int64_t length = block_length(tensor, scale.size());
  tensor.view({static_cast<int64_t>(scale.size()), length}).mul_(factors_like(tensor, scale));
}

void sgd_update_cpu(const at::Tensor& value, const at::Tensor& grad, const at::Tensor& momentum,
                    std::span<const double> scale, const SgdUpdate& update) {
  check_like(value, grad);
  check_like(value, momentum);
  const size_t blocks = scale.empty() ? 1 : scale.size();
  const int64_t length = block_length(value, blocks);
  with_element_type(value, [&](auto type) {
    using T = decltype(type);
    T* w = value.data_ptr<T>();
    const T* g = grad.const_data_ptr<T>();
    T* m = momentum.data_ptr<T>();
    for (size_t b = 0; b < blocks; ++b) {
      const int64_t at = static_cast<int64_t>(b) * length;
      update_block(w + at, g + at, m + at, length, scale.empty() ? 1.0 : scale[b], update);
    }
  });
}

void sgd_update_aten(const at::Tensor& value, const at::Tensor& grad, const at::Tensor& momentum,
                     std::span<const double> scale, const SgdUpdate& update) {
  check_like(value, grad);
  check_like(value, momentum);
  at::Tensor d = grad.clone();
  if (!scale.empty()) scale_blocks_aten(d, scale);
  if (update.weight_decay != 0) d.add_(value, update.weight_decay);
  momentum.mul_(update.momentum).add_(d);
  if (update.nesterov)
    value.sub_(d.add_(momentum, update.momentum), update.lr);
  else
    value.sub_(momentum, update.lr);
}

void move_towards_cpu(const at::Tensor& average, const at::Tensor& value, double weight) {
  check_like(average, value);
  with_element_type(average, [&](auto type) {
    using T = decltype(type);
    T* __restrict e = average.data_ptr<T>();
    const T* __restrict w = value.const_data_ptr<T>();
    const T factor = static_cast<T>(weight);
    for (int64_t i = 0; i < average.numel(); ++i) e[i] += factor * (w[i] - e[i]);
  });
}

void move_towards_aten(const at::Tensor& average, const at::Tensor& value, double weight) {
  check_like(average, value);
  average.add_(value - average, weight);
}

std::vector<double> unit_squares(const at::Tensor& tensor, int64_t units) {
  return tensor.is_cpu() ? unit_squares_cpu(tensor, units) : unit_squares_aten(tensor, units);
}

void scale_blocks(const at::Tensor& tensor, std::span<const double> scale) {
  tensor.is_cpu() ? scale_blocks_cpu(tensor, scale) : scale_blocks_aten(tensor, scale);
}

void sgd_update(const at::Tensor& value, const at::Tensor& grad, const at::Tensor& momentum,
                std::span<const double> scale, const SgdUpdate& update) {
  value.is_cpu() ? sgd_update_cpu(value, grad, momentum, scale, update)
                 : sgd_update_aten(value, grad, momentum, scale, update);
}

void move_towards(const at::Tensor& average, const at::Tensor& value, double weight) {
  average.is_cpu() ? move_towards_cpu(average, value, weight)
                   : move_towards_aten(average, value, weight);
}

}  // namespace nf::train::kernels

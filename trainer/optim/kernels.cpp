// See kernels.h.
#include "trainer/optim/kernels.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>

#include "core/check.h"
#include "core/vector_loop.h"
#include "trainer/optim/prefetch.h"

namespace nf::train::kernels {
namespace {

constexpr int64_t kLanes = 16;

// Lane k adds elements k, k + 16, ...; the lanes are added in one fixed tree.
template <class T>
double sum_of_squares_of(const T* x, int64_t n, T scale) {
  std::array<double, kLanes> sums{};
  double* const out = sums.data();
  vector_loop([=]() NF_INLINE {
    double lane[kLanes] = {};
    const int64_t whole = n / kLanes * kLanes;
    for (int64_t begin = 0; begin < whole; begin += kPrefetchBlock) {
      const int64_t end = std::min(begin + kPrefetchBlock, whole);
      prefetch_block(x, begin + 2 * kPrefetchBlock);
      for (int64_t i = begin; i < end; i += kLanes)
        for (int64_t k = 0; k < kLanes; ++k) {
          const T scaled = scale * x[i + k];
          const double v = static_cast<double>(scaled);
          lane[k] += v * v;
        }
    }
    for (int64_t k = 0; k < kLanes; ++k) out[k] = lane[k];
  });
  for (int64_t i = n / kLanes * kLanes, k = 0; i < n; ++i, ++k) {
    const T scaled = scale * x[i];
    const double v = static_cast<double>(scaled);
    out[k] += v * v;
  }
  for (int64_t width = kLanes / 2; width > 0; width /= 2)
    for (int64_t k = 0; k < width; ++k) out[k] += out[k + width];
  return out[0];
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

template <class T>
std::vector<double> unit_squares_cpu(const at::Tensor& tensor, int64_t units, int64_t length) {
  const T* const x = tensor.const_data_ptr<T>();
  std::vector<double> out(static_cast<size_t>(units));
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, length));
  at::parallel_for(0, units, grain, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u)
      out[static_cast<size_t>(u)] = sum_of_squares(x + u * length, length);
  });
  return out;
}

}  // namespace

double sum_of_squares(const float* x, int64_t n, double scale) {
  return sum_of_squares_of(x, n, static_cast<float>(scale));
}
double sum_of_squares(const double* x, int64_t n, double scale) {
  return sum_of_squares_of(x, n, scale);
}

std::vector<double> unit_squares_aten(const at::Tensor& tensor, int64_t units) {
  const int64_t length = block_length(tensor, static_cast<size_t>(units));
  const auto sums =
      tensor.view({units, length}).to(at::kDouble).square().sum(1).to(at::kCPU).contiguous();
  const auto* begin = sums.const_data_ptr<double>();
  return {begin, begin + units};
}

std::vector<double> unit_squares(const at::Tensor& tensor, int64_t units) {
  if (!tensor.is_cpu()) return unit_squares_aten(tensor, units);
  const int64_t length = block_length(tensor, static_cast<size_t>(units));
  if (tensor.scalar_type() == at::kFloat) return unit_squares_cpu<float>(tensor, units, length);
  NF_CHECK(tensor.scalar_type() == at::kDouble, "parameters are float32 or float64");
  return unit_squares_cpu<double>(tensor, units, length);
}

void scale_blocks(const at::Tensor& tensor, std::span<const double> scale) {
  const int64_t length = block_length(tensor, scale.size());
  tensor.view({static_cast<int64_t>(scale.size()), length}).mul_(factors_like(tensor, scale));
}

}  // namespace nf::train::kernels

// The arithmetic of the update, once as plain loops for CPU tensors and once as ATen operations for
// any device. Both follow the same formulas; the loops make one pass over memory and no
// temporaries. The functions without suffix choose by device.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

namespace nf::train::kernels {

// Sum of squares of each of the `units` equal consecutive blocks of a contiguous tensor,
// accumulated in float64 in an order that depends on the block's length alone.
std::vector<double> unit_squares(const at::Tensor& tensor, int64_t units);
std::vector<double> unit_squares_cpu(const at::Tensor& tensor, int64_t units);
std::vector<double> unit_squares_aten(const at::Tensor& tensor, int64_t units);

// Multiplies each of scale.size() equal consecutive blocks by its factor, in place.
void scale_blocks(const at::Tensor& tensor, std::span<const double> scale);
void scale_blocks_cpu(const at::Tensor& tensor, std::span<const double> scale);
void scale_blocks_aten(const at::Tensor& tensor, std::span<const double> scale);

struct SgdUpdate {
  double lr = 0;
  double momentum = 0;
  double weight_decay = 0;
  bool nesterov = true;
};
// d = scale g + wd W;  M <- momentum M + d;  W <- W - lr (d + momentum M), or W - lr M. One factor
// per unit; an empty `scale` means 1. The gradient is left as it is.
void sgd_update(const at::Tensor& value, const at::Tensor& grad, const at::Tensor& momentum,
                std::span<const double> scale, const SgdUpdate& update);
void sgd_update_cpu(const at::Tensor& value, const at::Tensor& grad, const at::Tensor& momentum,
                    std::span<const double> scale, const SgdUpdate& update);
void sgd_update_aten(const at::Tensor& value, const at::Tensor& grad, const at::Tensor& momentum,
                     std::span<const double> scale, const SgdUpdate& update);

// average <- average + weight (value - average).
void move_towards(const at::Tensor& average, const at::Tensor& value, double weight);
void move_towards_cpu(const at::Tensor& average, const at::Tensor& value, double weight);
void move_towards_aten(const at::Tensor& average, const at::Tensor& value, double weight);

}  // namespace nf::train::kernels

// The arithmetic of the update as ATen operations, for any device: what the CPU's passes over memory
// (update_pass.h) are checked against, and what SAM and other devices use. And the one sum that all
// need.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

namespace nf::train::kernels {

// Sum of (scale x)^2, products rounded to the element type, added in float64 in an order that
// depends on n alone: equal bits on every processor.
double sum_of_squares(const float* x, int64_t n, double scale = 1);
double sum_of_squares(const double* x, int64_t n, double scale = 1);

// Sum of squares of each of the `units` equal consecutive blocks of a contiguous tensor, added in
// float64 in an order that depends on the block's length alone.
std::vector<double> unit_squares(const at::Tensor& tensor, int64_t units);
std::vector<double> unit_squares_aten(const at::Tensor& tensor, int64_t units);

// Multiplies each of scale.size() equal consecutive blocks by its factor, in place.
void scale_blocks(const at::Tensor& tensor, std::span<const double> scale);

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

// average <- average + weight (value - average).
void move_towards(const at::Tensor& average, const at::Tensor& value, double weight);

}  // namespace nf::train::kernels

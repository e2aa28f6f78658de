// The norms that AGC and SAM need, for any device, and the one sum behind them on the CPU.
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

}  // namespace nf::train::kernels

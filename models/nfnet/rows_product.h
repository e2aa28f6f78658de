// Products of many rows with one small matrix in float32, for the CPU: 1x1 convolutions of small
// networks.
#pragma once

#include <ATen/ATen.h>

namespace nf::model {

// Whether rows_product is faster than LibTorch's ways for `rows` [m, k] and a result [m, n]:
// float32 on a processor with AVX-512 that MKL does not know as its own, a matrix that fits a
// cache, whole vectors (measured: docs/numbers.md, "Training step").
bool rows_product_is_faster(const at::Tensor& rows, int64_t n);

// rows [m, k], matrix [k, n] -> [m, n], to each row of which `bias` [n] is added if it is defined.
// All float32 on the CPU, rows and bias contiguous; m a multiple of 8, n of 16. A sum runs over k
// in order: the same bits for any number of threads.
at::Tensor rows_product(const at::Tensor& rows, const at::Tensor& matrix, const at::Tensor& bias);

}  // namespace nf::model

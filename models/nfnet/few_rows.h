// Products of a fully connected layer for few images, on the CPU: a squeeze-excite gate multiplies
// matrices of megabytes with a micro-batch of vectors, so reading the matrix once is all the work,
// which a general product of matrices, made to reuse it, does not come near.
#pragma once

#include <ATen/ATen.h>

namespace nf::model {

// x or g [images, ...] of float32 on the CPU, few enough that these are faster.
bool are_few_rows(const at::Tensor& x);

// x [B, I], w [O, I], b [O] -> x w^T + b [B, O]. All three: contiguous float32 on the CPU; sums in
// one fixed order, the same bits for any number of threads and on every processor.
at::Tensor few_rows_linear(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b);
// Its gradients for that of the result, g [B, O]: g w [B, I] and g^T x [O, I].
at::Tensor few_rows_of_input(const at::Tensor& g, const at::Tensor& w);
at::Tensor few_rows_of_weight(const at::Tensor& g, const at::Tensor& x);

}  // namespace nf::model

// A convolution with a 1x1 kernel as products of matrices, for the CPU.
#pragma once

#include <ATen/ATen.h>

namespace nf::model {

// Whether these products are the faster way for tensors like x: on the CPU, and in bfloat16 where
// the processor multiplies it (oneDNN's products are slow where they are emulated).
bool pointwise_conv_is_faster(const at::Tensor& x);

// x [B, C, H, W] and weight [O, C, 1, 1] of one type, bias [O] -> [B, O, H, W] in NHWC.
// In NHWC a pixel's channels lie side by side: with X [B H W, C] and G [B H W, O] the gradients are
// dX = G W, dW = G^T X and db = the sum of G's rows. On AVX-512 these products take 0.5 to 0.9 of
// the time of oneDNN's backward convolutions; forward, convolutions are faster unless there are
// fewer pixels than weights to reorder, and in bfloat16 that holds of dX too (docs/numbers.md,
// "Training step").
at::Tensor pointwise_conv(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace nf::model

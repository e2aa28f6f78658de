// A convolution with hand-written backward, for the CPU: each of its three products in the way that
// is fastest there.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace nf::model {

struct ConvShape {
  int64_t stride = 1;
  int64_t padding_h = 0, padding_w = 0;  // zeros on both sides
  int64_t groups = 1;
};

// Whether conv is the faster way for tensors like x: on the CPU, and in bfloat16 where the
// processor multiplies it (oneDNN's products are slow where they are emulated).
bool conv_is_faster(const at::Tensor& x);

// x [B, C, H, W], weight [O, C / groups, R, S] and bias [O] of one type -> [B, O, P, Q] in NHWC, as
// at::convolution gives it.
// A 1x1 kernel's gradients are products of matrices: in NHWC a pixel's channels lie side by side,
// and with X [B H W, C] and G [B H W, O] they are dX = G W, dW = G^T X and db = the sum of G's rows.
// On AVX-512 these products take 0.5 to 0.9 of the time of oneDNN's backward convolutions; forward,
// convolutions are faster unless there are fewer pixels than weights to reorder, and in bfloat16
// that holds of dX too. In bfloat16 dW is weight_gradient's, for all kernels, where that is faster
// (docs/numbers.md, "Training step").
at::Tensor conv(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                const ConvShape& shape);

}  // namespace nf::model

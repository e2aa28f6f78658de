// A convolution; on the CPU with a backward of our own, each of the three products in the way that
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

// x [B, C, H, W], weight [O, C / groups, R, S] and bias [O] of one type -> [B, O, P, Q] as
// at::convolution gives it; on the CPU in NHWC, with the products below.
// With X [B H W, C] and G [B H W, O], in NHWC the same memory as x and the result's gradient, a 1x1
// kernel's products are X W^T, dX = G W and dW = G^T X, and db is the sum of G's rows. Chosen by
// measurement (docs/numbers.md, "Training step"):
//   - all three of 3x3 kernels with stride 1 by Winograd's algorithm where that is faster;
//   - dW of other kernels, and db, by weight_gradient where that is faster;
//   - 1x1 kernels of few channels by rows_product where that is faster;
//   - other 1x1 kernels by LibTorch's products: dW, where they take 0.5 to 0.9 of the time of
//     oneDNN's backward convolution, and the other two where there are fewer pixels than weights
//     to reorder, dX also in float32 on the processors MKL is made for;
//   - all else by oneDNN's convolutions.
at::Tensor conv(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                const ConvShape& shape);

}  // namespace nf::model

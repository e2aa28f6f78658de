// The gradient of a convolution's weight and bias in float32 or bfloat16, for the CPU.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "models/nfnet/conv.h"

namespace nf::model {

struct WeightGradient {
  at::Tensor weight;  // [O, C / groups, R, S] in NHWC
  at::Tensor bias;    // [O]
};

// Whether weight_gradient is faster than oneDNN's backward convolution and MKL's products for an
// input like x and such a weight. bfloat16: on a CPU that multiplies pairs of it (AVX512_BF16) but
// has no tiles (AMX). float32: with AVX-512, but not on the processors MKL is made for. Neither for
// few channels or images (measured: docs/numbers.md, "Training step").
bool weight_gradient_is_faster(const at::Tensor& x, const at::Tensor& weight, int64_t groups);

// x [B, C, H, W] and the gradient g [B, O, P, Q] of the convolution's result, both float32 or both
// bfloat16, in NHWC; kernel R x S:
//   dW[o,c,r,s] = sum over b, p, q of g[b,o,p,q] x[b,c, stride p + r - padding_h, stride q + s -
//   padding_w],   db[o] = sum over b, p, q of g[b,o,p,q].
// A product of matrices for each of the R S places of the kernel: both tensors are copied once, in
// blocks of channels, and all places read the same copies, shifted. The instruction for bfloat16
// multiplies and adds two values at a time: here those of the same pixel of two images. Sums in
// float32 in one order, rounded once: the same bits for any number of threads. Works without the
// instructions too, slowly. Memory: for each thread the sums and some MiB of packed channels.
WeightGradient weight_gradient(const at::Tensor& x, const at::Tensor& g, int64_t kernel_h,
                               int64_t kernel_w, const ConvShape& shape);

}  // namespace nf::model

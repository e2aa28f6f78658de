// 3x3 convolutions with stride 1 for the CPU, in float32 or bfloat16, with fewer multiplications:
// 16 instead of 36 for 2 x 2 outputs or, in float32 and where the images fill such tiles, 36
// instead of 144 for 4 x 4.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "models/nfnet/conv.h"
#include "models/nfnet/weight_gradient.h"

namespace nf::model {

// Whether these are faster than oneDNN's convolutions for an input x and such a weight.
bool winograd_is_faster(const at::Tensor& x, const at::Tensor& weight, const ConvShape& shape);

// x [B, C, H, W], weight [O, C / groups, 3, 3], bias [O] of one type, float32 or bfloat16, x and
// weight in NHWC -> [B, O, H, W] in NHWC: the convolution with one zero around the image, by
// Y = A^T [(G g G^T) * (B^T d B)] A (winograd_maps.h). C / groups and O / groups are multiples of
// 16. The result's error in float32 is about 1e-6 of its norm for 128 channels, twice that of a
// direct convolution. In bfloat16 G g G^T and B^T d B are rounded to bfloat16, all else is computed
// in float32: the relative error is about 0.42 %, where rounding the result alone makes 0.17.
// Sums have one order: the same bits for any number of threads, and for an image whatever lies
// beside it. Memory: 4 times the weight, up to a MiB for each thread.
at::Tensor winograd_conv(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         int64_t groups);

// The gradient of x for that of the result, g [B, O, H, W] in NHWC.
at::Tensor winograd_of_images(const at::Tensor& g, const at::Tensor& weight, int64_t groups);

// The gradients of weight and bias for x and g in NHWC. In bfloat16 C / groups is a multiple of 32.
WeightGradient winograd_of_weight(const at::Tensor& x, const at::Tensor& g, int64_t groups);

}  // namespace nf::model

// The pieces that an NFNet block is made of (nfnet_spec.md sections 2, 3 and 8) as functions of
// tensors. Each is one operation a fused kernel can replace. The activation's gamma and a block's
// 1/beta are never applied to activations: they are scalars in front of a linear operation, so they
// are folded into the standardized weights of the convolution that follows.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

#include "models/nfnet/gelu.h"
#include "models/nfnet/spec.h"

namespace nf::model {

// Scaled weight standardization (section 3), times `scale`. weight [O, ...], gain [O,1,1,1]; biased
// statistics over the fan-in of each output. The result is of the given type (bfloat16 beside
// float32: rounded once), else of the weight's. On the CPU, and on a GPU once the plug-in is
// loaded, one pass forward and one backward with hand-written gradients, the same bits for any
// number of threads; elsewhere the composition below.
at::Tensor standardize(const at::Tensor& weight, const at::Tensor& gain, Flavour flavour,
                       double scale = 1.0, at::ScalarType type = at::ScalarType::Undefined);
// Its backward pass alone: writes the gradients of weight and gain for a given gradient of the
// result, whose type may be bfloat16. On the CPU the gain's is NaN where a row of the weight's is
// not finite: whoever asks need not read the weight's.
void standardize_backward(const at::Tensor& weight, const at::Tensor& gain, const at::Tensor& grad,
                          Flavour flavour, double scale, const at::Tensor& grad_weight,
                          const at::Tensor& grad_gain);
// The same as a composition of differentiable operations: other devices, and the reference in
// tests.
at::Tensor standardize_composed(const at::Tensor& weight, const at::Tensor& gain, Flavour flavour,
                                double scale = 1.0);

// GELU without gamma: tanh form (kDm) or erf (kTimm).
at::Tensor gelu(const at::Tensor& x, Flavour flavour);
GeluFork gelu_fork(const at::Tensor& x, Flavour flavour);
// gelu(x) and avg_pool_same of it.
GeluPool gelu_pool_same(const at::Tensor& x, Flavour flavour);

// Convolution of x [B,C,H,W] with TensorFlow's SAME padding: output ceil(n / stride).
at::Tensor conv_same(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                     int64_t stride, int64_t groups);
// conv_same(gelu(x)); where SAME pads only behind an image, GELU writes the padding.
at::Tensor gelu_conv_same(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          int64_t stride, int64_t groups, Flavour flavour);

// 2x2 mean pooling with stride 2 and SAME padding: windows at an odd border divide by their real
// pixels.
at::Tensor avg_pool_same(const at::Tensor& x);

// Which residual branches stay, [block][image] of 0 and 1 (section 8): block i of n stays where
// floor(1 - rate*i/n + u) is 1, u being draw i of the image's own generator. Nothing is rescaled.
std::vector<std::vector<float>> stochastic_depth_masks(double rate, int64_t blocks, uint64_t seed,
                                                       std::span<const uint64_t> positions);

// Inverted dropout: [image, feature] of 0 and 1 / (1 - rate), drawn from each image's own
// generator.
at::Tensor dropout_mask(double rate, int64_t features, uint64_t seed,
                        std::span<const uint64_t> positions);

}  // namespace nf::model

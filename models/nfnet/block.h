// One residual block of an NFNet as a function of its input and its parameters (nfnet_spec.md
// section 2).
#pragma once

#include <ATen/ATen.h>

#include <span>

#include "models/nfnet/spec.h"

namespace nf::model {

struct ConvParameters {
  at::Tensor weight, bias;
  at::Tensor gain;   // undefined: the weight is standardized and scaled already
  double scale = 1;  // of the standardized weight (ParameterSpec::scale)
};

struct BlockParameters {
  at::Tensor skip_gain;
  ConvParameters shortcut;  // undefined tensors where the block has no projection
  ConvParameters conv1, conv2, conv2b, conv3;
  at::Tensor fc1_weight, fc1_bias, fc2_weight, fc2_bias;
};

// A block's tensors are listed in the order of parameter_specs(), without gains where the weights
// are `standardized`: 17, or 20 with a projection, 4 or 5 of them gains.
size_t block_tensors(const BlockSpec& block, bool standardized);
BlockParameters block_parameters(const BlockSpec& block, std::span<const at::Tensor> tensors,
                                 bool standardized);

// Weight-standardized convolution in the type of x: of x, and of gelu(x).
at::Tensor ws_conv(const at::Tensor& x, const ConvParameters& p, int64_t stride, int64_t groups,
                   Flavour flavour);
at::Tensor gelu_ws_conv(const at::Tensor& x, const ConvParameters& p, int64_t stride,
                        int64_t groups, Flavour flavour);

// x [B, C_in, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)]. keep: [B,1,1,1] of 0 and 1 in
// the type of x, or undefined: which images keep their residual branch.
at::Tensor block_forward(const at::Tensor& x, const BlockSpec& block, const BlockParameters& p,
                         const NfnetSpec& spec, const at::Tensor& keep);

}  // namespace nf::model

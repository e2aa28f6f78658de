// See block.h.
#include "models/nfnet/block.h"

#include "core/check.h"
#include "models/nfnet/layers.h"
#include "models/nfnet/squeeze_excite.h"

namespace nf::model {

size_t block_tensors(const BlockSpec& block, bool standardized) {
  const size_t convolutions = block.projection ? 5 : 4;
  return 5 + convolutions * (standardized ? 2 : 3);
}

BlockParameters block_parameters(const BlockSpec& block, std::span<const at::Tensor> tensors,
                                 bool standardized) {
  NF_CHECK(tensors.size() == block_tensors(block, standardized), block.name);
  auto next = tensors.begin();
  const auto conv = [&next, standardized](double scale) {
    ConvParameters p;
    p.weight = *next++;
    p.bias = *next++;
    if (!standardized) p.gain = *next++;
    p.scale = scale;
    return p;
  };
  const double input_scale = kGammaGelu / block.beta;  // act(x) / beta = input_scale * gelu(x)
  BlockParameters p;
  p.skip_gain = *next++;
  if (block.projection) p.shortcut = conv(input_scale);
  p.conv1 = conv(input_scale);
  p.conv2 = conv(kGammaGelu);
  p.conv2b = conv(kGammaGelu);
  p.conv3 = conv(kGammaGelu);
  p.fc1_weight = *next++;
  p.fc1_bias = *next++;
  p.fc2_weight = *next++;
  p.fc2_bias = *next++;
  return p;
}

namespace {

at::Tensor final_weight(const ConvParameters& p, Flavour flavour, at::ScalarType type) {
  return p.gain.defined() ? standardize(p.weight, p.gain, flavour, p.scale, type) : p.weight;
}

}  // namespace

at::Tensor ws_conv(const at::Tensor& x, const ConvParameters& p, int64_t stride, int64_t groups,
                   Flavour flavour) {
  const auto type = x.scalar_type();
  return conv_same(x, final_weight(p, flavour, type), p.bias.to(type), stride, groups);
}

at::Tensor gelu_ws_conv(const at::Tensor& x, const ConvParameters& p, int64_t stride,
                        int64_t groups, Flavour flavour) {
  const auto type = x.scalar_type();
  return gelu_conv_same(x, final_weight(p, flavour, type), p.bias.to(type), stride, groups,
                        flavour);
}

at::Tensor block_forward(const at::Tensor& x, const BlockSpec& block, const BlockParameters& p,
                         const NfnetSpec& spec, const at::Tensor& keep) {
  const Flavour flavour = spec.flavour;
  at::Tensor shortcut, o;
  if (block.projection && block.stride == 1) {
    o = gelu(x, flavour);
    shortcut = ws_conv(o, p.shortcut, 1, 1, flavour);
  } else if (block.projection) {
    const GeluPool both = gelu_pool_same(x, flavour);
    o = both.activated;
    shortcut = ws_conv(both.pooled, p.shortcut, 1, 1, flavour);
  } else {
    const GeluFork both = gelu_fork(x, flavour);
    shortcut = both.x;
    o = both.activated;
  }
  o = ws_conv(o, p.conv1, 1, 1, flavour);
  o = gelu_ws_conv(o, p.conv2, block.stride, block.groups, flavour);
  o = gelu_ws_conv(o, p.conv2b, 1, block.groups, flavour);
  o = gelu_ws_conv(o, p.conv3, 1, 1, flavour);
  return excited_sum(
      shortcut, o,
      {p.fc1_weight, p.fc1_bias, p.fc2_weight, p.fc2_bias, p.skip_gain, 2.0 * spec.alpha}, keep);
}

}  // namespace nf::model

// See layers.h.
#include "models/nfnet/layers.h"

#include <cmath>

#include "core/check.h"
#include "core/rng.h"
#include "models/nfnet/conv.h"

namespace nf::model {
namespace {

struct Padding {
  int64_t before, after;
  bool symmetric() const { return before == after; }
};

Padding same_padding(int64_t size, int64_t kernel, int64_t stride) {
  const int64_t out = (size + stride - 1) / stride;
  const int64_t total = std::max<int64_t>((out - 1) * stride + kernel - size, 0);
  return {total / 2, total - total / 2};
}

}  // namespace

at::Tensor gelu(const at::Tensor& x, Flavour flavour) {
  if (flavour == Flavour::kTimm) return at::gelu(x, "none");
  return gelu_tanh(x);
}

GeluFork gelu_fork(const at::Tensor& x, Flavour flavour) {
  if (flavour == Flavour::kTimm) return {x, gelu(x, flavour)};
  return gelu_tanh_fork(x);
}

GeluPool gelu_pool_same(const at::Tensor& x, Flavour flavour) {
  if (flavour == Flavour::kDm && gelu_tanh_pools(x)) return gelu_tanh_pool(x);
  const at::Tensor activated = gelu(x, flavour);
  return {activated, avg_pool_same(activated)};
}

at::Tensor conv_same(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                     int64_t stride, int64_t groups) {
  const Padding h = same_padding(x.size(2), weight.size(2), stride);
  const Padding w = same_padding(x.size(3), weight.size(3), stride);
  if (h.symmetric() && w.symmetric())
    return conv(x, weight, bias, {stride, h.before, w.before, groups});
  return conv(at::constant_pad_nd(x, {w.before, w.after, h.before, h.after}, 0), weight, bias,
              {stride, 0, 0, groups});
}

at::Tensor gelu_conv_same(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          int64_t stride, int64_t groups, Flavour flavour) {
  const Padding h = same_padding(x.size(2), weight.size(2), stride);
  const Padding w = same_padding(x.size(3), weight.size(3), stride);
  const bool behind = h.before + w.before == 0 && h.after + w.after > 0;
  if (flavour == Flavour::kTimm || !behind)
    return conv_same(gelu(x, flavour), weight, bias, stride, groups);
  return conv(gelu_tanh_padded(x, h.after, w.after), weight, bias, {stride, 0, 0, groups});
}

at::Tensor avg_pool_same(const at::Tensor& x) {
  return at::avg_pool2d(x, {2, 2}, {2, 2}, {0, 0}, /*ceil_mode=*/true,
                        /*count_include_pad=*/false);
}

std::vector<std::vector<float>> stochastic_depth_masks(double rate, int64_t blocks, uint64_t seed,
                                                       std::span<const uint64_t> positions) {
  std::vector<std::vector<float>> masks(static_cast<size_t>(blocks),
                                        std::vector<float>(positions.size()));
  for (size_t image = 0; image < positions.size(); ++image) {
    PositionRng rng(seed, Stream::kStochasticDepth, positions[image]);
    for (size_t i = 0; i < masks.size(); ++i) {
      const double drop = rate * static_cast<double>(i) / static_cast<double>(blocks);
      masks[i][image] = static_cast<float>(std::floor(1.0 - drop + rng.uniform()));
    }
  }
  return masks;
}

at::Tensor dropout_mask(double rate, int64_t features, uint64_t seed,
                        std::span<const uint64_t> positions) {
  NF_CHECK(rate >= 0 && rate < 1);
  at::Tensor mask = at::empty({static_cast<int64_t>(positions.size()), features}, at::kFloat);
  const auto keep = static_cast<float>(1.0 / (1.0 - rate));
  float* out = mask.mutable_data_ptr<float>();
  for (const uint64_t position : positions) {
    PositionRng rng(seed, Stream::kDropout, position);
    for (int64_t i = 0; i < features; ++i) *out++ = rng.uniform() >= rate ? keep : 0.0F;
  }
  return mask;
}

}  // namespace nf::model

// The layers against plain definitions: weight standardization and its gradients, SAME padding,
// pooling, masks.
#include "models/nfnet/layers.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/rng.h"
#include "tests/support/tiny_net.h"

namespace nf::test {
namespace {

using model::Flavour;

at::Tensor numbers(const std::string& name, const std::vector<int64_t>& shape,
                   at::ScalarType type = at::kDouble) {
  const uint64_t seed = fnv1a64(name);
  std::vector<double> values(static_cast<size_t>(element_count(shape)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = v_seeded(seed, i);
  return tensor_of(values, shape, type);
}

struct StandardizeCase {
  const char* what;
  std::vector<int64_t> shape;
  double magnitude;
};
const std::vector<StandardizeCase> kStandardizeCases = {
    {"3x3", {6, 5, 3, 3}, 0.3},
    {"1x1", {16, 24, 1, 1}, 0.2},
    {"below dm's floor", {4, 8, 1, 1}, 1e-3},
    {"fan-in shorter than a vector", {3, 3, 1, 1}, 0.5},
};

TEST(Standardize, EqualsItsComposition) {
  for (const auto& c : kStandardizeCases) {
    for (const Flavour flavour : {Flavour::kDm, Flavour::kTimm}) {
      SCOPED_TRACE(std::string(c.what) + " " + model::flavour_name(flavour));
      std::vector<at::Tensor> results;
      for (const bool fused : {true, false}) {
        at::Tensor w = numbers("w", c.shape) * c.magnitude + 0.1 * c.magnitude;
        at::Tensor g = 1 + 0.5 * numbers("g", {c.shape[0], 1, 1, 1});
        w.set_requires_grad(true);
        g.set_requires_grad(true);
        const at::Tensor out = fused ? model::standardize(w, g, flavour, 1.7)
                                     : model::standardize_composed(w, g, flavour, 1.7);
        torch::autograd::backward({(out * numbers("up", c.shape)).sum()}, {});
        results.insert(results.end(), {out.detach(), w.grad(), g.grad()});
      }
      EXPECT_TRUE(at::allclose(results[0], results[3], 1e-11, 1e-13));
      EXPECT_TRUE(at::allclose(results[1], results[4], 1e-10, 1e-10));
      EXPECT_TRUE(at::allclose(results[2], results[5], 1e-10, 1e-12));
    }
  }
}

TEST(Standardize, FollowsTheFormulaByHand) {
  // One output, fan-in 2: W = (3, 1): mean 2, N*var = 2, so W_hat = gain * (1, -1) / sqrt(2).
  const at::Tensor w = tensor_of({3, 1}, {1, 2, 1, 1}, at::kDouble);
  const at::Tensor g = tensor_of({3}, {1, 1, 1, 1}, at::kDouble);
  const std::vector<double> dm = doubles_of(model::standardize(w, g, Flavour::kDm));
  EXPECT_NEAR(dm[0], 3 / std::sqrt(2.0), 1e-14);
  EXPECT_NEAR(dm[1], -3 / std::sqrt(2.0), 1e-14);
  const std::vector<double> timm = doubles_of(model::standardize(w, g, Flavour::kTimm));
  EXPECT_NEAR(timm[0], 3 / (std::sqrt(2.0) * std::sqrt(1.00001)), 1e-14);
}

TEST(Standardize, Float32StaysNearFloat64) {
  const at::Tensor w = numbers("w", {64, 128, 3, 3}) * 0.05 + 0.01;
  const at::Tensor g = at::ones({64, 1, 1, 1}, at::kDouble);
  const at::Tensor exact = model::standardize(w, g, Flavour::kDm);
  const at::Tensor single =
      model::standardize(w.to(at::kFloat), g.to(at::kFloat), Flavour::kDm).to(at::kDouble);
  EXPECT_LT((single - exact).abs().max().item<double>(), 2e-6 * exact.abs().max().item<double>());
}

TEST(Standardize, InBfloat16IsTheRoundedResult) {
  const std::vector<int64_t> shape = {7, 5, 3, 3};
  const at::Tensor up = numbers("up", shape, at::kBFloat16);
  std::vector<at::Tensor> results;
  for (const bool inside : {true, false}) {
    at::Tensor w = numbers("w", shape, at::kFloat), g = 1 + numbers("g", {7, 1, 1, 1}, at::kFloat);
    w.set_requires_grad(true);
    g.set_requires_grad(true);
    const at::Tensor out = inside ? model::standardize(w, g, Flavour::kDm, 1.7, at::kBFloat16)
                                  : model::standardize(w, g, Flavour::kDm, 1.7).to(at::kBFloat16);
    torch::autograd::backward({out}, {up});
    results.insert(results.end(), {out.detach(), w.grad(), g.grad()});
  }
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(same_bits(results[i], results[i + 3])) << i;
}

TEST(Standardize, LiesInNhwcAndReadsGradientsInBothLayouts) {
  const std::vector<int64_t> shape = {7, 5, 3, 2};
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor w = numbers("w", shape, at::kFloat);
    const at::Tensor g = 1 + numbers("g", {7, 1, 1, 1}, at::kFloat),
                     up = numbers("up", shape, type);
    const at::Tensor out = model::standardize(w, g, Flavour::kDm, 1.0, type);
    EXPECT_TRUE(out.is_contiguous(at::MemoryFormat::ChannelsLast));
    std::vector<at::Tensor> found;
    for (const auto layout : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
      const at::Tensor of_w = at::empty_like(w), of_g = at::empty_like(g);
      model::standardize_backward(w, g, up.contiguous(layout), Flavour::kDm, 1.0, of_w, of_g);
      found.insert(found.end(), {of_w, of_g});
    }
    EXPECT_TRUE(same_bits(found[0], found[2]));
    EXPECT_TRUE(same_bits(found[1], found[3]));
  }
}

TEST(Standardize, SameBitsForAnyNumberOfThreads) {
  const at::Tensor w = numbers("w", {96, 64, 3, 3}, at::kFloat);
  const at::Tensor g = numbers("g", {96, 1, 1, 1}, at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = model::standardize(w, g, Flavour::kDm);
  at::set_num_threads(3);
  const at::Tensor three = model::standardize(w, g, Flavour::kDm);
  at::set_num_threads(threads);
  EXPECT_TRUE(same_bits(one, three));
}

// SAME padding by definition: output pixel o covers inputs o*s - before + k.
at::Tensor naive_conv_same(const at::Tensor& x, const at::Tensor& w, int64_t stride) {
  const int64_t h = x.size(2), wd = x.size(3), k = w.size(2);
  const int64_t oh = (h + stride - 1) / stride, ow = (wd + stride - 1) / stride;
  const int64_t top = std::max<int64_t>((oh - 1) * stride + k - h, 0) / 2;
  const int64_t left = std::max<int64_t>((ow - 1) * stride + k - wd, 0) / 2;
  at::Tensor out = at::zeros({x.size(0), w.size(0), oh, ow}, x.options());
  for (int64_t y = 0; y < oh; ++y)
    for (int64_t c = 0; c < ow; ++c)
      for (int64_t i = 0; i < k; ++i)
        for (int64_t j = 0; j < k; ++j) {
          const int64_t yy = y * stride - top + i, xx = c * stride - left + j;
          if (yy < 0 || yy >= h || xx < 0 || xx >= wd) continue;
          const at::Tensor term = at::matmul(x.select(2, yy).select(2, xx),
                                             w.select(2, i).select(2, j).transpose(0, 1));
          out.select(2, y).select(2, c).add_(term);
        }
  return out;
}

TEST(ConvSame, MatchesTheDefinition) {
  for (const int64_t h : {5, 6, 7}) {
    for (const int64_t w : {4, 9}) {
      for (const int64_t stride : {1, 2}) {
        for (const int64_t kernel : {1, 3}) {
          const at::Tensor x = numbers("x", {2, 4, h, w});
          const at::Tensor weight = numbers("k", {3, 4, kernel, kernel});
          const at::Tensor bias = numbers("b", {3});
          const at::Tensor got = model::conv_same(x, weight, bias, stride, 1);
          const at::Tensor want = naive_conv_same(x, weight, stride) + bias.view({1, 3, 1, 1});
          ASSERT_EQ(got.sizes(), want.sizes());
          EXPECT_TRUE(at::allclose(got, want, 1e-12, 1e-12))
              << h << "x" << w << " stride " << stride << " kernel " << kernel;
        }
      }
    }
  }
}

TEST(GeluConvSame, EqualsItsTwoSteps) {
  for (const int64_t kernel : {1, 3})
    for (const int64_t stride : {1, 2})
      for (const auto& [height, width] :
           {std::pair<int64_t, int64_t>{8, 8}, {7, 8}, {8, 7}, {7, 9}})
        for (const auto flavour : {model::Flavour::kDm, model::Flavour::kTimm}) {
          const at::Tensor x = (at::arange(2 * 4 * height * width, at::kDouble) * 0.37)
                                   .sin()
                                   .view({2, 4, height, width})
                                   .contiguous(at::MemoryFormat::ChannelsLast);
          const at::Tensor weight = (at::arange(6 * 2 * kernel * kernel, at::kDouble) * 0.71)
                                        .cos()
                                        .view({6, 2, kernel, kernel});
          const at::Tensor bias = at::arange(6, at::kDouble);
          const at::Tensor got = model::gelu_conv_same(x, weight, bias, stride, 2, flavour);
          const at::Tensor want =
              model::conv_same(model::gelu(x, flavour), weight, bias, stride, 2);
          ASSERT_EQ(got.sizes(), want.sizes());
          EXPECT_LT((got - want).abs().max().item<double>(), 1e-12);
        }
}

TEST(AvgPoolSame, BorderWindowsDivideByTheirPixels) {
  const at::Tensor x = at::arange(1, 10, at::kDouble).view({1, 1, 3, 3});
  const std::vector<double> got = doubles_of(model::avg_pool_same(x));
  EXPECT_EQ(got, (std::vector<double>{3, 4.5, 7.5, 9}));
}

TEST(Gelu, Flavours) {
  const at::Tensor x = tensor_of({-2.7, -1, 0, 0.5, 2.7}, {5}, at::kDouble);
  const std::vector<double> dm = doubles_of(model::gelu(x, Flavour::kDm));
  const std::vector<double> timm = doubles_of(model::gelu(x, Flavour::kTimm));
  const std::vector<double> in = doubles_of(x);
  for (size_t i = 0; i < in.size(); ++i) {
    const double t = in[i];
    const double inner = std::sqrt(2 / 3.14159265358979323846) * (t + 0.044715 * t * t * t);
    EXPECT_NEAR(dm[i], 0.5 * t * (1 + std::tanh(inner)), 1e-13);
    EXPECT_NEAR(timm[i], 0.5 * t * (1 + std::erf(t / std::sqrt(2.0))), 1e-13);
  }
}

TEST(StochasticDepthMasks, FollowEachImagesOwnDraws) {
  const std::vector<uint64_t> positions = {0, 1, 2, 1'000'000'000'000ull, 7};
  const auto masks = model::stochastic_depth_masks(0.5, 6, 3, positions);
  ASSERT_EQ(masks.size(), 6U);
  for (size_t image = 0; image < positions.size(); ++image) {
    PositionRng rng(3, Stream::kStochasticDepth, positions[image]);
    for (size_t block = 0; block < 6; ++block) {
      const double drop = 0.5 * static_cast<double>(block) / 6;
      EXPECT_EQ(masks[block][image], rng.uniform() >= drop ? 1.0F : 0.0F);
    }
  }
  // A part of a batch draws what the whole batch drew.
  const auto part = model::stochastic_depth_masks(0.5, 6, 3, std::span(positions).subspan(3, 1));
  for (size_t block = 0; block < 6; ++block) EXPECT_EQ(part[block][0], masks[block][3]);
}

TEST(StochasticDepthMasks, RatesGrowWithDepth) {
  std::vector<uint64_t> positions(20000);
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = i;
  const auto masks = model::stochastic_depth_masks(0.4, 8, 11, positions);
  for (size_t block = 0; block < masks.size(); ++block) {
    double kept = 0;
    for (const float m : masks[block]) kept += static_cast<double>(m);
    const double p = 0.4 * static_cast<double>(block) / 8;
    EXPECT_NEAR(kept / 20000, 1 - p, 5 * std::sqrt(p * (1 - p) / 20000) + 1e-12) << block;
  }
}

TEST(DropoutMask, InvertedAndPerPosition) {
  const std::vector<uint64_t> positions = {5, 6};
  const at::Tensor mask = model::dropout_mask(0.25, 40000, 9, positions);
  const at::Tensor kept = mask.gt(0).to(at::kDouble).mean({1});
  for (int64_t i = 0; i < 2; ++i) EXPECT_NEAR(kept[i].item<double>(), 0.75, 0.011);
  EXPECT_TRUE(at::logical_or(mask.eq(0), mask.eq(static_cast<float>(1 / 0.75))).all().item<bool>());
  EXPECT_FALSE(same_bits(mask[0], mask[1]));
  const at::Tensor second = model::dropout_mask(0.25, 40000, 9, std::span(positions).subspan(1, 1));
  EXPECT_TRUE(same_bits(mask[1], second[0]));
}

}  // namespace
}  // namespace nf::test

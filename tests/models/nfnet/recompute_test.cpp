// Blocks computed again in the backward pass: the same bits in logits and in every gradient, with
// masks, in every type, with frozen parts, and nothing kept where nothing is to be differentiated.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/support/tiny_net.h"

namespace nf::model {
namespace {

struct Pass {
  at::Tensor logits;
  std::vector<at::Tensor> gradients;  // of the parameters that require one
};

Pass pass(const Nfnet& net, ForwardOptions options, bool recompute) {
  options.recompute_blocks = recompute;
  const at::Tensor images = test::golden_image_tensor({3, 3, 40, 40}, at::kFloat);
  Pass p;
  p.logits = net.forward(images, options);
  std::vector<at::Tensor> leaves;
  for (const auto& n : net.parameters())
    if (n.tensor.requires_grad()) leaves.push_back(n.tensor);
  const at::Tensor loss = test::golden_loss(p.logits, 0.1);
  for (const auto& g : torch::autograd::grad({loss}, leaves)) p.gradients.push_back(g);
  return p;
}

void expect_same(const Nfnet& net, const ForwardOptions& options) {
  const Pass kept = pass(net, options, false), again = pass(net, options, true);
  EXPECT_TRUE(test::same_bits(kept.logits, again.logits));
  ASSERT_EQ(kept.gradients.size(), again.gradients.size());
  size_t nonzero = 0;
  for (size_t i = 0; i < kept.gradients.size(); ++i) {
    EXPECT_TRUE(test::same_bits(kept.gradients[i], again.gradients[i])) << i;
    nonzero += kept.gradients[i].abs().max().item<double>() > 0 ? 1 : 0;
  }
  EXPECT_GT(nonzero, kept.gradients.size() / 2);
}

ForwardOptions training(const std::vector<uint64_t>& positions) {
  ForwardOptions options;
  options.training = true;
  options.dropout = 0.2;
  options.stochastic_depth = 0.5;
  options.seed = 5;
  options.positions = positions;
  return options;
}
const std::vector<uint64_t> kPositions = {7, 100, 3};

TEST(Recompute, TheSameBitsInEveryGradient) {
  for (const Flavour flavour : {Flavour::kDm, Flavour::kTimm})
    expect_same(test::golden_tiny(at::kFloat, flavour), training(kPositions));
  expect_same(test::golden_tiny(at::kFloat), {});
}

TEST(Recompute, Bfloat16) {
  ForwardOptions options = training(kPositions);
  options.compute = at::kBFloat16;
  expect_same(test::golden_tiny(at::kFloat), options);
}

TEST(Recompute, WithFrozenParts) {
  for (const std::string frozen : {"stem.", "stages.0.", "stages.2.0.conv1.", "stages.3."}) {
    const Nfnet net = test::golden_tiny(at::kFloat);
    for (const auto& p : net.parameters())
      if (p.name.starts_with(frozen)) p.tensor.set_requires_grad(false);
    expect_same(net, training(kPositions));
  }
  const Nfnet net = test::golden_tiny(at::kFloat);
  for (const auto& p : net.parameters())
    if (!p.name.starts_with("head.")) p.tensor.set_requires_grad(false);
  expect_same(net, training(kPositions));
}

TEST(Recompute, WithoutGradientsNothingIsKept) {
  const Nfnet net = test::golden_tiny(at::kFloat);
  ForwardOptions options;
  options.recompute_blocks = true;
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(
      net.forward(test::golden_image_tensor({1, 3, 40, 40}, at::kFloat), options).requires_grad());
}

}  // namespace
}  // namespace nf::model

// The working weights and the backward pass behind them: the same bits as plain autograd from the
// parameters, in a flat buffer, for every type, with recomputed blocks and frozen parts.
#include "trainer/backward.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>

#include "tests/support/tiny_net.h"
#include "trainer/flat_params.h"

namespace nf::train {
namespace {

struct Net {
  explicit Net(at::ScalarType compute = at::kFloat, bool frozen_stem = false)
      : net(test::golden_tiny(at::kFloat)), layout(layout_of(net)) {
    if (frozen_stem)
      for (const auto& p : net.parameters())
        if (p.name.starts_with("stem.")) at::Tensor(p.tensor).set_requires_grad(false);
    options.compute = compute;
  }
  at::Tensor loss(const model::ForwardOptions& o) const {
    return test::golden_loss(net.forward(test::golden_image_tensor({3, 3, 40, 40}, at::kFloat), o),
                             0.1);
  }
  // By plain autograd.
  std::vector<at::Tensor> expected() const {
    std::vector<at::Tensor> leaves, out;
    for (const auto& p : net.parameters())
      if (p.tensor.requires_grad()) leaves.push_back(p.tensor);
    const auto found = torch::autograd::grad({loss(options)}, leaves);
    auto next = found.begin();
    for (const auto& p : net.parameters())
      out.push_back(p.tensor.requires_grad() ? *next++ : at::zeros_like(p.tensor));
    return out;
  }
  void expect(const at::Tensor& flat) const {
    const auto gradients = expected();
    for (size_t i = 0; i < gradients.size(); ++i)
      EXPECT_TRUE(test::same_bits(layout.view(flat, i), gradients[i].detach()))
          << net.parameters()[i].name;
  }

  model::Nfnet net;
  FlatLayout layout;
  model::ForwardOptions options;
};

at::Tensor dirty_buffer(const FlatLayout& layout) {
  at::Tensor flat = layout.make_arena();
  return flat.fill_(1e30);
}

double padding(const FlatLayout& layout, const at::Tensor& flat) {
  at::Tensor rest = flat.clone();
  for (size_t i = 0; i < layout.size(); ++i) layout.view(rest, i).zero_();
  return rest.abs().max().item<double>();
}

TEST(Backward, WritesTheGradientsOfPlainAutograd) {
  for (const at::ScalarType compute : {at::kFloat, at::kBFloat16})
    for (const bool recompute : {false, true})
      for (const bool frozen : {false, true}) {
        Net n(compute, frozen);
        model::WorkingWeights working(n.net, compute);
        Backward backward(working, n.layout);
        working.refresh();
        model::ForwardOptions with = n.options;
        with.weights = &working;
        with.recompute_blocks = recompute;
        for (int pass = 0; pass < 2; ++pass) {  // one refresh serves many passes
          const at::Tensor flat = dirty_buffer(n.layout);
          std::vector<size_t> offsets;
          EXPECT_TRUE(
              backward.run(n.loss(with), flat, [&](size_t offset) { offsets.push_back(offset); }));
          n.expect(flat);
          EXPECT_EQ(padding(n.layout, flat), 0.0);
          ASSERT_FALSE(offsets.empty());
          EXPECT_TRUE(std::is_sorted(offsets.rbegin(), offsets.rend()));
          EXPECT_EQ(offsets.back(), 0u);
          EXPECT_GT(offsets.size(), n.layout.size() / 4);  // announced on the way
        }
      }
}

TEST(Backward, FollowsTheParametersAfterARefresh) {
  Net n;
  model::WorkingWeights working(n.net, at::kFloat);
  Backward backward(working, n.layout);
  working.refresh();
  model::ForwardOptions with = n.options;
  with.weights = &working;
  const at::Tensor before =
      n.net.forward(test::golden_image_tensor({1, 3, 40, 40}, at::kFloat), with);
  {
    const at::NoGradGuard no_grad;
    for (const auto& p : n.net.parameters()) at::Tensor(p.tensor).mul_(1.25).add_(0.01);
  }
  working.refresh();
  const at::Tensor images = test::golden_image_tensor({1, 3, 40, 40}, at::kFloat);
  const at::Tensor after = n.net.forward(images, with);
  EXPECT_FALSE(test::same_bits(before, after));
  EXPECT_TRUE(test::same_bits(after, n.net.forward(images, n.options)));
  const at::Tensor flat = dirty_buffer(n.layout);
  backward.run(n.loss(with), flat);
  n.expect(flat);
}

// What a loss made of the leaves themselves needs.
struct Leaves {
  Leaves() { working.refresh(); }
  Net net;
  model::WorkingWeights working{net.net, at::kFloat};
  Backward backward{working, net.layout};
  at::Tensor flat = dirty_buffer(net.layout);
};

TEST(Backward, ParametersThatTheLossDoesNotReachGetZeros) {
  Leaves l;
  const auto& leaves = l.working.leaves();
  l.backward.run((leaves.front().tensor * 2).sum() + leaves.back().tensor.sum(), l.flat);
  EXPECT_EQ(l.net.layout.view(l.flat, l.net.layout.size() - 1).min().item<float>(), 1.0F);
  for (size_t i = 3; i + 1 < l.net.layout.size(); ++i)
    EXPECT_EQ(l.net.layout.view(l.flat, i).abs().max().item<float>(), 0.0F) << i;
  EXPECT_FALSE(leaves.front().tensor.grad().defined());
}

// In every leaf one element's gradient is infinite, or so large that a weight's overflows on the
// way back through its standardization.
TEST(Backward, TellsWhetherAllOfItIsFinite) {
  Leaves l;
  const auto& leaves = l.working.leaves();
  for (size_t i = 0; i < leaves.size(); ++i)
    for (const float large : {1e30F, 3.4e38F, std::numeric_limits<float>::infinity(),
                              std::numeric_limits<float>::quiet_NaN()}) {
      at::Tensor loss = at::zeros({});
      for (const auto& leaf : leaves) {
        at::Tensor slope = at::full(leaf.tensor.sizes(), 0.5);
        if (&leaf == &leaves[i]) slope.view(-1)[slope.numel() - 1] = large;
        loss = loss + (leaf.tensor * slope).sum();
      }
      const bool finite = l.backward.run(loss, l.flat);
      EXPECT_EQ(finite, l.flat.isfinite().all().item<bool>()) << i << ", " << large;
      EXPECT_TRUE(finite || large > 1e38F || std::isnan(large));
    }
}

}  // namespace
}  // namespace nf::train

// Sgd, Ema and FlatLayout on small tensors, against the update rules written out by hand.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/golden_values.h"
#include "trainer/optim/ema.h"
#include "trainer/optim/param_group.h"
#include "trainer/optim/schedule.h"
#include "trainer/optim/sgd.h"

namespace nf::train {
namespace {

at::Tensor numbers(const char* name, const std::vector<int64_t>& shape, double scale) {
  std::vector<double> values(static_cast<size_t>(test::element_count(shape)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = scale * test::v(name, i);
  return at::tensor(values, at::kDouble).view(shape);
}

Param param(const char* name, const std::vector<int64_t>& shape, ParamRole role) {
  return {.name = name,
          .value = numbers(name, shape, 1.0),
          .grad = numbers("gradient", shape, 0.01),
          .role = role};
}

TEST(FlatLayout, AlignsEveryTensorAndKeepsPaddingZero) {
  const FlatLayout layout(std::vector<std::vector<int64_t>>{{3}, {}, {4, 4}, {17, 1}, {0}, {2}});
  const std::vector<size_t> offsets = {0, 16, 32, 48, 80, 80};
  for (size_t i = 0; i < offsets.size(); ++i) EXPECT_EQ(layout.offset(i), offsets[i]);
  EXPECT_EQ(layout.elements(), 96u);
  const at::Tensor arena = layout.make_arena();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(arena.data_ptr()) % 64, 0u);
  for (const at::Tensor& view : layout.views(arena)) {
    EXPECT_TRUE(view.is_contiguous());
    view.fill_(1);
  }
  EXPECT_EQ(arena.sum().item<double>(), 3 + 1 + 16 + 17 + 2);
  EXPECT_EQ(layout.view(arena, 1).dim(), 0);
  EXPECT_EQ(layout.view(arena, 2).data_ptr<float>(), arena.data_ptr<float>() + 32);
  EXPECT_THROW(layout.view(arena, 6), std::logic_error);
  EXPECT_THROW(layout.view(at::zeros({95}), 0), std::logic_error);
}

// Three steps of one number, by hand.
double by_hand(double w, const std::array<double, 3>& grads, double lr, double wd, bool nesterov) {
  double m = 0;
  for (const double grad : grads) {
    const double g = grad + wd * w;
    m = 0.9 * m + g;
    w -= lr * (nesterov ? g + 0.9 * m : m);
  }
  return w;
}

TEST(Sgd, FollowsTheRuleWithDecayByRoleScaleAndFreezing) {
  const std::array<double, 3> grads = {0.5, -0.25, 0.125};
  for (const bool nesterov : {true, false}) {
    std::vector<Param> params;
    const auto add = [&](const char* name, ParamRole role) {
      params.push_back({.name = name,
                        .value = at::full({1}, 2.0, at::kDouble),
                        .grad = at::zeros({1}, at::kDouble),
                        .role = role});
    };
    add("conv", ParamRole::kConvWeight);
    add("gain", ParamRole::kGain);
    add("slow", ParamRole::kLinearWeight);
    add("frozen", ParamRole::kClassifierWeight);
    params[2].lr_scale = 0.1;
    params[3].frozen = true;
    params[3].grad = at::Tensor();
    Sgd sgd(params,
            {.momentum = 0.9, .weight_decay = 0.1, .nesterov = nesterov, .agc = {.clip = 0}});
    for (const double g : grads) {
      for (size_t i = 0; i < 3; ++i) params[i].grad.fill_(g);
      const StepStats stats = sgd.step(0.2);
      EXPECT_NEAR(stats.grad_norm, std::sqrt(3.0) * std::abs(g), 1e-14);
      EXPECT_EQ(stats.units, 0);
    }
    EXPECT_NEAR(params[0].value.item<double>(), by_hand(2, grads, 0.2, 0.1, nesterov), 1e-14);
    EXPECT_NEAR(params[1].value.item<double>(), by_hand(2, grads, 0.2, 0.0, nesterov), 1e-14);
    EXPECT_NEAR(params[2].value.item<double>(), by_hand(2, grads, 0.02, 0.1, nesterov), 1e-14);
    EXPECT_EQ(params[3].value.item<double>(), 2.0);
  }
}

TEST(Sgd, ClipsLikeClipGradientsAndLeavesTheGradientsAlone) {
  const auto make = [] {
    return std::vector<Param>{param("conv", {6, 3, 3, 3}, ParamRole::kConvWeight),
                              param("gain", {6, 1, 1, 1}, ParamRole::kGain),
                              param("head", {5, 6}, ParamRole::kClassifierWeight)};
  };
  const std::vector<Param> a = make(), b = make();
  const AgcOptions agc{.clip = 0.004, .eps = 1e-3};
  Sgd together(a, {.weight_decay = 0.01, .agc = agc});
  const StepStats stats = together.step(0.3);
  EXPECT_TRUE(a[0].grad.equal(numbers("gradient", {6, 3, 3, 3}, 0.01)));

  const AgcResult clipped = clip_gradients(b, agc.clip, agc.eps);
  Sgd apart(b, {.weight_decay = 0.01, .agc = {.clip = 0}});
  const StepStats after = apart.step(0.3);
  EXPECT_EQ(stats.units, 7);
  EXPECT_EQ(stats.units, clipped.units);
  EXPECT_EQ(stats.clipped, clipped.clipped);
  EXPECT_GT(stats.clipped, 0);
  EXPECT_NEAR(stats.grad_norm_after_agc, after.grad_norm, 1e-15);
  EXPECT_LT(stats.grad_norm_after_agc, stats.grad_norm);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(a[i].value.equal(b[i].value)) << a[i].name;
    EXPECT_TRUE(together.momentum()[i].equal(apart.momentum()[i])) << a[i].name;
  }
}

TEST(Sgd, TouchesNothingUnlessEveryGradientIsFinite) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    const std::vector<Param> params = {param("first", {3, 4}, ParamRole::kConvWeight),
                                       param("second", {40}, ParamRole::kBias),
                                       param("third", {2}, ParamRole::kBias)};
    params[1].grad[37] = bad;
    params[2].grad[0] = bad;
    Sgd sgd(params, {.weight_decay = 0.1});
    sgd.momentum("second").fill_(0.5);
    const StepStats stats = sgd.step(0.1);
    EXPECT_FALSE(stats.finite);
    EXPECT_EQ(stats.first_non_finite, "second");
    for (const Param& p : params)
      EXPECT_TRUE(p.value.equal(numbers(p.name.c_str(), p.value.sizes().vec(), 1.0)));
    EXPECT_EQ(sgd.momentum("first").abs().max().item<double>(), 0.0);
    EXPECT_EQ(sgd.momentum("second").min().item<double>(), 0.5);
  }
}

TEST(Sgd, MomentumIsOneArenaFoundByName) {
  Sgd sgd({param("a", {3}, ParamRole::kBias), param("b", {5}, ParamRole::kBias)}, {});
  sgd.step(0.1);
  EXPECT_EQ(sgd.momentum_arena().numel(), 32);
  EXPECT_EQ(sgd.momentum("b").data_ptr<double>(), sgd.momentum_arena().data_ptr<double>() + 16);
  EXPECT_GT(sgd.momentum("b").abs().max().item<double>(), 0.0);
  EXPECT_THROW(sgd.momentum("c"), std::logic_error);
}

TEST(Sgd, RefusesParametersOfMixedTypes) {
  Param single = param("b", {5}, ParamRole::kBias);
  single.value = single.value.to(at::kFloat);
  EXPECT_THROW(Sgd({param("a", {3}, ParamRole::kBias), single}, {}), std::logic_error);
}

TEST(Sgd, WorksOnLeavesThatRequireGradients) {
  Param p = param("a", {3}, ParamRole::kBias);
  const at::Tensor before = p.value.clone();
  p.value.requires_grad_(true);
  Sgd sgd({p}, {});
  Ema ema({p}, 0.9);
  sgd.step({.lr = 0.1, .gradient = at::ones({16}, at::kDouble), .average = &ema});
  EXPECT_FALSE(p.value.detach().equal(before));
  EXPECT_FALSE(ema.values()[0].requires_grad());
}

// An update that moves the average alone.
void follow(Sgd& sgd, Ema& ema, uint64_t t) {
  const at::Tensor none = at::zeros_like(sgd.momentum_arena());
  sgd.step({.lr = 0, .gradient = none, .average = &ema, .index = t});
}

TEST(Ema, StartsAsACopyAndFollowsTheRule) {
  const Param p = param("a", {4, 5}, ParamRole::kConvWeight);
  Sgd sgd({p}, {});
  Ema ema({p}, 0.2);
  at::Tensor expected = p.value.clone();
  EXPECT_TRUE(ema.values()[0].equal(expected));
  for (uint64_t t = 0; t < 5; ++t) {
    p.value.mul_(1.5).add_(0.1);
    follow(sgd, ema, t);
    const double d = ema_decay(0.2, t);
    expected = d * expected + (1 - d) * p.value;
    EXPECT_TRUE(at::allclose(ema.values()[0], expected, 1e-14, 1e-15));
  }
}

TEST(Ema, DoesNotDriftInFloat32) {
  Param p = param("a", {64}, ParamRole::kBias);
  p.value = p.value.to(at::kFloat);
  Sgd sgd({p}, {});
  Ema ema({p}, 0.99999);
  for (uint64_t t = 0; t < 200; ++t) follow(sgd, ema, 1'000'000 + t);
  EXPECT_TRUE(ema.values()[0].equal(p.value));
}

}  // namespace
}  // namespace nf::train

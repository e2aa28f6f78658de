// An optimizer whose update is a device's, the device here being loops over the kernels'
// arithmetic, against the same optimizer on the CPU: table of units, arenas, rates and figures.
#include "trainer/optim/arena_update.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/golden_values.h"
#include "tests/trainer/optim/update_twin.h"
#include "trainer/optim/ema.h"
#include "trainer/optim/sgd.h"

namespace nf::train {
namespace {

at::Tensor numbers(const char* name, const std::vector<int64_t>& shape, double scale) {
  at::Tensor out = at::empty(shape, at::kFloat);
  float* const x = out.data_ptr<float>();
  for (int64_t i = 0; i < out.numel(); ++i)
    x[i] = static_cast<float>(scale * test::v(name, static_cast<size_t>(i)));
  return out;
}

// Two equal ones; the second updates as a device does.
struct Optimizer {
  explicit Optimizer(bool on_device,
                     const SgdOptions& options = {.weight_decay = 0.01, .agc = {.clip = 0.02}}) {
    const std::vector<std::pair<std::vector<int64_t>, ParamRole>> shapes = {
        {{16, 3, 3, 3}, ParamRole::kConvWeight},
        {{16, 1, 1, 1}, ParamRole::kGain},
        {{}, ParamRole::kSkipGain},
        {{5, 1537}, ParamRole::kLinearWeight},
        {{37}, ParamRole::kBias},
        {{10, 64}, ParamRole::kClassifierWeight}};
    std::vector<std::vector<int64_t>> sizes;
    for (const auto& [shape, role] : shapes) sizes.push_back(shape);
    layout = FlatLayout(sizes);
    weights = layout.make_arena();
    for (size_t i = 0; i < shapes.size(); ++i) {
      params.push_back({.name = "p" + std::to_string(i),
                        .value = layout.view(weights, i),
                        .role = shapes[i].second,
                        .lr_scale = i == 3 ? 0.1 : 1.0,
                        .frozen = i == 4});
      params.back().value.copy_(numbers("value", shapes[i].first, 0.1));
    }
    sgd = std::make_unique<Sgd>(params, options);
    ema = std::make_unique<Ema>(params, 0.9);
    if (on_device) sgd->use_device(test::update_twin<>);
  }

  StepStats step(const at::Tensor& gradient, uint64_t index, bool average = true) {
    return sgd->step({.lr = 0.3,
                      .gradient = gradient,
                      .scale = 0.125,
                      .average = average ? ema.get() : nullptr,
                      .index = index});
  }

  FlatLayout layout;
  at::Tensor weights;
  std::vector<Param> params;
  std::unique_ptr<Sgd> sgd;
  std::unique_ptr<Ema> ema;
};

at::Tensor gradient_of(const Optimizer& o) {
  at::Tensor flat = o.layout.make_arena();
  for (size_t i = 0; i < o.layout.size(); ++i)
    o.layout.view(flat, i).copy_(numbers("gradient", o.layout.shape(i), i % 2 ? 0.002 : 0.1));
  return flat;
}

TEST(ArenaUpdate, DoesWhatTheCpuDoes) {
  Optimizer cpu(false), device(true);
  const at::Tensor gradient = gradient_of(cpu);
  for (uint64_t t = 0; t < 4; ++t) {
    const StepStats a = cpu.step(gradient, t, t != 2), b = device.step(gradient, t, t != 2);
    EXPECT_TRUE(b.finite);
    EXPECT_NEAR(a.grad_norm, b.grad_norm, 1e-6 * a.grad_norm);
    EXPECT_NEAR(a.grad_norm_after_agc, b.grad_norm_after_agc, 1e-6 * a.grad_norm);
    EXPECT_EQ(a.units, b.units);
    EXPECT_EQ(a.clipped, b.clipped);
    EXPECT_GT(a.clipped, 0);
    EXPECT_LT(a.clipped, a.units);
  }
  for (const auto& [a, b] : {std::pair(cpu.weights, device.weights),
                             std::pair(cpu.sgd->momentum_arena(), device.sgd->momentum_arena()),
                             std::pair(cpu.ema->arena(), device.ema->arena())})
    EXPECT_TRUE(at::allclose(a, b, 1e-6, 1e-7));
  EXPECT_TRUE(device.params[4].value.equal(numbers("value", {37}, 0.1))) << "frozen";
  EXPECT_FALSE(device.params[0].value.equal(numbers("value", {16, 3, 3, 3}, 0.1)));
}

TEST(ArenaUpdate, TouchesNothingUnlessEveryGradientIsFinite) {
  Optimizer o(true);
  at::Tensor gradient = gradient_of(o);
  o.step(gradient, 0);
  const std::vector<at::Tensor> before = {o.weights.clone(), o.sgd->momentum_arena().clone(),
                                          o.ema->arena().clone()};
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    gradient = gradient_of(o);
    o.layout.view(gradient, 3)[4][1536] = bad;
    o.layout.view(gradient, 5)[0][0] = bad;
    o.layout.view(gradient, 4)[0] = bad;  // frozen: nobody's concern
    const StepStats stats = o.step(gradient, 1);
    EXPECT_FALSE(stats.finite);
    EXPECT_EQ(stats.first_non_finite, "p3");
    EXPECT_TRUE(o.weights.equal(before[0]));
    EXPECT_TRUE(o.sgd->momentum_arena().equal(before[1]));
    EXPECT_TRUE(o.ema->arena().equal(before[2]));
  }
}

TEST(ArenaUpdate, RefusesWeightsThatAreNotAnArena) {
  Optimizer o(false);
  o.params[2].value = o.params[2].value.clone();
  Sgd apart(o.params, {});
  EXPECT_THROW(apart.use_device(test::update_twin<>), std::logic_error);
  EXPECT_THROW(Optimizer(false).sgd->use_device({}), std::logic_error);
}

}  // namespace
}  // namespace nf::train

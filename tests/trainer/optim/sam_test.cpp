// The perturbation alone, in float64 against its formulas (nfnet_spec.md section 9).
#include "trainer/optim/sam.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/tiny_net.h"

namespace nf::train {
namespace {

// Two tensors with fixed numbers in one arena, as the trainer's parameters are.
struct Fixture {
  explicit Fixture(SamOptions options, bool freeze_second = false,
                   at::ScalarType type = at::kDouble)
      : layout({{3, 5}, {7}}), weights(layout.make_arena(type)) {
    for (size_t i = 0; i < 2; ++i) {
      params.push_back({.name = i == 0 ? "a" : "b", .value = layout.view(weights, i)});
      for (int64_t k = 0; k < params[i].value.numel(); ++k)
        params[i].value.flatten()[k] = std::sin(1.0 + static_cast<double>(k) * (i ? 0.7 : 0.3));
    }
    params[1].frozen = freeze_second;
    sam.emplace(params, layout, weights, options);
    before = weights.clone();
    for (size_t i = 0; i < 2; ++i) {
      at::Tensor g = layout.view(sam->gradient(), i).flatten();
      for (int64_t k = 0; k < g.numel(); ++k) g[k] = std::cos(static_cast<double>(k) + (i ? 3 : 0));
      gradients.push_back(g.clone());
    }
  }
  FlatLayout layout;
  at::Tensor weights, before;
  std::vector<Param> params;
  std::vector<at::Tensor> gradients;
  std::optional<Sam> sam;
};

double norm(const std::vector<at::Tensor>& tensors) {
  double squares = 0;
  for (const auto& t : tensors) squares += t.square().sum().item<double>();
  return std::sqrt(squares);
}

TEST(Sam, MovesByRhoAlongTheGradientOfAllParametersTogether) {
  Fixture f({.rho = 0.05});
  f.sam->perturb();
  const double length = norm(f.gradients);
  for (size_t i = 0; i < 2; ++i) {
    const at::Tensor expected =
        f.layout.view(f.before, i).flatten() + 0.05 * f.gradients[i] / length;
    EXPECT_LT((f.params[i].value.flatten() - expected).abs().max().item<double>(), 1e-15);
  }
  EXPECT_NEAR((f.weights - f.before).norm().item<double>(), 0.05, 1e-15);
}

TEST(Sam, AdaptiveScalesByTheSquareOfEachWeight) {
  Fixture f({.rho = 1.5, .adaptive = true});
  std::vector<at::Tensor> scaled;
  for (size_t i = 0; i < 2; ++i)
    scaled.push_back(f.layout.view(f.before, i).flatten().abs() * f.gradients[i]);
  const double length = norm(scaled);
  f.sam->perturb();
  for (size_t i = 0; i < 2; ++i) {
    const at::Tensor w = f.layout.view(f.before, i).flatten();
    const at::Tensor expected = w + 1.5 * w * w * f.gradients[i] / length;
    EXPECT_LT((f.params[i].value.flatten() - expected).abs().max().item<double>(), 1e-14);
  }
}

TEST(Sam, RestoresEveryBit) {
  for (const bool adaptive : {false, true}) {
    Fixture f({.rho = 0.3, .adaptive = adaptive}, false, at::kFloat);
    f.sam->perturb();
    EXPECT_FALSE(test::same_bits(f.weights, f.before));
    f.sam->restore();
    EXPECT_TRUE(test::same_bits(f.weights, f.before));
  }
}

TEST(Sam, FrozenParametersNeitherMoveNorCount) {
  Fixture f({.rho = 0.05}, true);
  f.sam->perturb();
  EXPECT_TRUE(test::same_bits(f.params[1].value, f.layout.view(f.before, 1)));
  EXPECT_NEAR((f.weights - f.before).norm().item<double>(), 0.05, 1e-15);
}

TEST(Sam, AZeroGradientMovesNothing) {
  Fixture f({.rho = 0.05});
  at::Tensor gradient = f.sam->gradient();
  gradient.zero_();
  f.sam->perturb();
  EXPECT_TRUE(test::same_bits(f.weights, f.before));
}

TEST(Sam, TheFirstFifthOfAMicroBatchAtLeastOne) {
  EXPECT_EQ(ascent_count(0.2, 10), 2);
  EXPECT_EQ(ascent_count(0.2, 12), 2);
  EXPECT_EQ(ascent_count(0.2, 13), 3);
  EXPECT_EQ(ascent_count(0.2, 1), 1);
  EXPECT_EQ(ascent_count(1, 7), 7);
}

TEST(Sam, RhoZeroIsOffAndHoldsNoMemory) {
  const FlatLayout layout(std::vector<std::vector<int64_t>>{{4}});
  const at::Tensor weights = layout.make_arena();
  const Sam sam({{.name = "a", .value = layout.view(weights, 0)}}, layout, weights, {.rho = 0});
  EXPECT_FALSE(sam.on());
  EXPECT_FALSE(sam.gradient().defined());
}

}  // namespace
}  // namespace nf::train

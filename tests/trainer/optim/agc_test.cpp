// Adaptive gradient clipping against golden cases, and the two implementations against each other.
#include "trainer/optim/agc.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "tests/support/golden_values.h"
#include "trainer/optim/kernels.h"

namespace nf::train {
namespace {

at::Tensor tensor_of(const std::vector<double>& values, const std::vector<int64_t>& shape) {
  return at::tensor(values, at::kDouble).view(shape);
}

at::Tensor golden_tensor(const char* name, const std::vector<int64_t>& shape, double scale) {
  std::vector<double> values(static_cast<size_t>(test::element_count(shape)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = scale * test::v(name, i);
  return tensor_of(values, shape);
}

TEST(Agc, EqualsGoldenCases) {
  const auto cases = test::golden_json("agc_cases.json");
  ASSERT_GE(cases.size(), 5u);
  for (const auto& c : cases) {
    const std::vector<int64_t> shape = c.at("shape");
    const Param p{.name = c.at("name"),
                  .value = tensor_of(c.at("param"), shape),
                  .grad = tensor_of(c.at("grad"), shape),
                  .role = ParamRole::kConvWeight};
    const AgcResult result = clip_gradients({p}, c.at("clipping"), c.at("eps"));
    EXPECT_EQ(result.units, c.at("dm").at("units").get<int64_t>()) << p.name;
    EXPECT_EQ(result.clipped, c.at("dm").at("units_clipped").get<int64_t>()) << p.name;
    const std::vector<double> expected = c.at("dm").at("clipped");
    ASSERT_EQ(static_cast<int64_t>(expected.size()), p.grad.numel());
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_TRUE(test::golden_near(p.grad.const_data_ptr<double>()[i], expected[i], 1e-12, 1e-15))
          << p.name << " element " << i;
  }
}

TEST(Agc, Float32FollowsFloat64) {
  for (const auto& c : test::golden_json("agc_cases.json")) {
    const std::vector<int64_t> shape = c.at("shape");
    const Param p{.name = c.at("name"),
                  .value = tensor_of(c.at("param"), shape).to(at::kFloat),
                  .grad = tensor_of(c.at("grad"), shape).to(at::kFloat),
                  .role = ParamRole::kConvWeight};
    clip_gradients({p}, c.at("clipping"), c.at("eps"));
    const std::vector<double> expected = c.at("dm").at("clipped");
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_TRUE(test::golden_near(p.grad.const_data_ptr<float>()[i], expected[i], 1e-5, 1e-9))
          << p.name << " element " << i;
  }
}

TEST(AgcUnits, FollowTheNumberOfWideDimensions) {
  const auto count = [](const std::vector<int64_t>& shape) { return agc_units(shape).count; };
  EXPECT_EQ(count({}), 1);
  EXPECT_EQ(count({7}), 1);
  EXPECT_EQ(count({7, 1, 1, 1}), 1);  // a gain is a vector
  EXPECT_EQ(count({1, 7}), 1);
  EXPECT_EQ(count({7, 1}), 1);
  EXPECT_EQ(count({7, 3}), 7);
  EXPECT_EQ(count({7, 3, 1, 1}), 7);
  EXPECT_EQ(count({1, 3, 5, 1}), 1);  // one output of several inputs
  EXPECT_EQ(agc_units({8, 2, 3, 3}).size, 18);
}

TEST(Agc, LeavesTheClassifierMatrixAndFrozenParametersAlone) {
  std::vector<Param> params;
  for (const ParamRole role :
       {ParamRole::kClassifierWeight, ParamRole::kClassifierBias, ParamRole::kConvWeight})
    params.push_back({.name = "p",
                      .value = golden_tensor("w", {4, 3}, 0.1),
                      .grad = golden_tensor("g", {4, 3}, 1.0),
                      .role = role});
  params.push_back(params.back());
  params.back().grad = golden_tensor("g", {4, 3}, 1.0);
  params.back().frozen = true;
  const AgcResult result = clip_gradients(params, 0.01);
  EXPECT_EQ(result.units, 8);  // bias and convolution
  EXPECT_EQ(result.clipped, 8);
  const at::Tensor original = golden_tensor("g", {4, 3}, 1.0);
  EXPECT_TRUE(params[0].grad.equal(original));
  EXPECT_FALSE(params[1].grad.equal(original));
  EXPECT_FALSE(params[2].grad.equal(original));
  EXPECT_TRUE(params[3].grad.equal(original));
}

TEST(Agc, ZeroClipSwitchesItOff) {
  const Param p{.name = "p",
                .value = golden_tensor("w", {4, 3}, 0.1),
                .grad = golden_tensor("g", {4, 3}, 1.0),
                .role = ParamRole::kConvWeight};
  const AgcResult result = clip_gradients({p}, 0.0);
  EXPECT_EQ(result.units, 0);
  EXPECT_TRUE(p.grad.equal(golden_tensor("g", {4, 3}, 1.0)));
}

TEST(Agc, MeasuresNormsBeforeAndAfter) {
  const Param p{.name = "p",
                .value = golden_tensor("w", {5, 2, 3, 3}, 0.1),
                .grad = golden_tensor("g", {5, 2, 3, 3}, 1.0),
                .role = ParamRole::kConvWeight};
  const UnitScales scales = measure_units(p, {.clip = 0.05, .eps = 1e-3});
  EXPECT_NEAR(scales.grad_squares, p.grad.square().sum().item<double>(), 1e-12);
  scale_units(p.grad, scales);
  EXPECT_NEAR(scales.clipped_grad_squares, p.grad.square().sum().item<double>(), 1e-12);
  EXPECT_LT(scales.clipped_grad_squares, scales.grad_squares);
}

TEST(Agc, FailsOnAMissingGradient) {
  const Param p{.name = "p", .value = golden_tensor("w", {4}, 1), .grad = {}};
  EXPECT_THROW(clip_gradients({p}, 0.01), std::logic_error);
}

TEST(Agc, FactorIsTheShareOfTheNormThatIsLeft) {
  const AgcOptions agc{.clip = 0.1, .eps = 1e-3};
  EXPECT_EQ(clip_factor(0.01, 1.0, agc), 1.0);  // a norm of exactly the limit stays
  EXPECT_NEAR(clip_factor(4.0, 1.0, agc), 0.05, 1e-15);
  EXPECT_NEAR(clip_factor(4.0, 0.0, agc), 0.1 * 1e-3 / 2, 1e-18);  // floor of the weights' norm
  EXPECT_EQ(clip_factor(0.0, 0.0, agc), 1.0);
}

TEST(Kernels, SumsOfSquaresAgreeWithAtenAndTakeTheScale) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{}, {17}, {6, 5, 3, 3}, {3, 1000}}) {
    const int64_t units = agc_units(shape).count;
    const at::Tensor x = golden_tensor("g", shape, 0.7);
    for (const at::Tensor& t : {x, x.to(at::kFloat)}) {
      const auto a = kernels::unit_squares(t, units), b = kernels::unit_squares_aten(t, units);
      for (size_t u = 0; u < a.size(); ++u) EXPECT_NEAR(a[u], b[u], 1e-13 * b[u]);
    }
    EXPECT_NEAR(kernels::sum_of_squares(x.const_data_ptr<double>(), x.numel(), 0.5),
                0.25 * x.square().sum().item<double>(), 1e-12);
  }
  EXPECT_EQ(kernels::sum_of_squares(static_cast<const float*>(nullptr), 0), 0.0);
}

}  // namespace
}  // namespace nf::train

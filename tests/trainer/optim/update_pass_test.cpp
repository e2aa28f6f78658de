// The CPU's fused update against the composition of ATen operations, for every kind of parameter.
#include "trainer/optim/update_pass.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/golden_values.h"
#include "trainer/optim/agc.h"

namespace nf::train {
namespace {

at::Tensor numbers(const char* name, const std::vector<int64_t>& shape, double scale,
                   at::ScalarType type) {
  std::vector<double> values(static_cast<size_t>(test::element_count(shape)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = scale * test::v(name, i);
  return at::tensor(values, at::kDouble).view(shape).to(type);
}

// Parameters with one unit, many small, few large, a single number; with and without clipping and
// decay.
std::vector<UpdateTensor> parameters(at::ScalarType type, bool average) {
  const std::vector<std::vector<int64_t>> shapes = {{16, 3, 3, 3}, {16, 1, 1, 1}, {},
                                                    {5, 70001},    {37},          {300, 257}};
  std::vector<UpdateTensor> out;
  for (const auto& shape : shapes) {
    const bool odd = out.size() % 2 == 1;
    out.push_back({.value = numbers("value", shape, 0.5, type),
                   .gradient = numbers("gradient", shape, 0.2, type),
                   .momentum = numbers("momentum", shape, 0.1, type),
                   .average = average ? numbers("average", shape, 0.4, type) : at::Tensor(),
                   .clipped = !odd || shape.size() == 1,
                   .lr = odd ? 0.1 : 0.3,
                   .weight_decay = odd ? 0.0 : 0.01});
  }
  return out;
}

UpdateResult composed(const std::vector<UpdateTensor>& tensors, const UpdateRule& rule) {
  UpdateResult out;
  for (const UpdateTensor& t : tensors) {
    const at::Tensor g = t.gradient * rule.gradient_scale;
    const UnitScales s =
        measure_units({.value = t.value,
                       .grad = g,
                       .role = t.clipped ? ParamRole::kConvWeight : ParamRole::kClassifierWeight},
                      rule.agc);
    out.grad_squares += s.grad_squares;
    out.clipped_grad_squares += s.clipped_grad_squares;
    out.units += s.units;
    out.clipped += s.clipped;
    at::Tensor d = g.clone();
    scale_units(d, s);
    d.add_(t.value, t.weight_decay);
    t.momentum.mul_(rule.momentum).add_(d);
    t.value.sub_(rule.nesterov ? d.add_(t.momentum, rule.momentum) : t.momentum, t.lr);
    if (t.average.defined()) t.average.add_(t.value - t.average, rule.average_weight);
  }
  return out;
}

TEST(UpdatePass, IsTheComposition) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble})
    for (const bool nesterov : {true, false})
      for (const bool average : {true, false})
        for (const double clip : {0.1, 0.0}) {
          const UpdateRule rule{.gradient_scale = 0.25,
                                .momentum = 0.9,
                                .nesterov = nesterov,
                                .agc = {.clip = clip, .eps = 1e-3},
                                .average_weight = 0.3};
          const auto fused = parameters(type, average), plain = parameters(type, average);
          const UpdateResult a = update_pass(fused, rule), b = composed(plain, rule);
          EXPECT_EQ(a.not_finite, -1);
          EXPECT_EQ(a.units, b.units);
          EXPECT_EQ(a.clipped, b.clipped);
          EXPECT_EQ(a.clipped > 0, clip > 0);
          EXPECT_LT(a.clipped, a.units + (clip > 0 ? 0 : 1));
          EXPECT_NEAR(a.grad_squares / b.grad_squares, 1, 1e-12);
          EXPECT_NEAR(a.clipped_grad_squares / b.clipped_grad_squares, 1, 1e-12);
          const double tolerance = type == at::kFloat ? 2e-6 : 1e-14;
          for (size_t i = 0; i < fused.size(); ++i) {
            EXPECT_TRUE(at::allclose(fused[i].value, plain[i].value, tolerance, tolerance)) << i;
            EXPECT_TRUE(at::allclose(fused[i].momentum, plain[i].momentum, tolerance, tolerance));
            if (average) {
              EXPECT_TRUE(at::allclose(fused[i].average, plain[i].average, tolerance, tolerance));
            }
            EXPECT_TRUE(fused[i].gradient.equal(plain[i].gradient));  // only read
          }
        }
}

TEST(UpdatePass, HasTheSameBitsForAnyNumberOfThreads) {
  const int before = at::get_num_threads();
  std::vector<std::vector<UpdateTensor>> results;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    results.push_back(parameters(at::kFloat, true));
    update_pass(results.back(), {.gradient_scale = 0.3, .agc = {.clip = 0.1}});
  }
  at::set_num_threads(before);
  for (const auto& result : results)
    for (size_t i = 0; i < result.size(); ++i) {
      EXPECT_TRUE(result[i].value.equal(results[0][i].value));
      EXPECT_TRUE(result[i].momentum.equal(results[0][i].momentum));
      EXPECT_TRUE(result[i].average.equal(results[0][i].average));
    }
}

TEST(UpdatePass, OnePassGivesTheBitsOfTwo) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble})
    for (const bool average : {true, false}) {
      const auto known = parameters(type, average), looked_at = parameters(type, average);
      const UpdateResult a =
          update_pass(known, {.gradient_scale = 0.3, .finite = true, .agc = {.clip = 0.1}});
      const UpdateResult b = update_pass(looked_at, {.gradient_scale = 0.3, .agc = {.clip = 0.1}});
      EXPECT_GT(b.clipped, 0);
      EXPECT_EQ(a.units, b.units);
      EXPECT_EQ(a.clipped, b.clipped);
      EXPECT_EQ(a.grad_squares, b.grad_squares);
      EXPECT_EQ(a.clipped_grad_squares, b.clipped_grad_squares);
      for (size_t i = 0; i < known.size(); ++i) {
        EXPECT_TRUE(known[i].value.equal(looked_at[i].value));
        EXPECT_TRUE(known[i].momentum.equal(looked_at[i].momentum));
        if (average) {
          EXPECT_TRUE(known[i].average.equal(looked_at[i].average));
        }
      }
    }
}

TEST(UpdatePass, ChangesNothingWhenAGradientIsNotFinite) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    const auto tensors = parameters(at::kFloat, true), before = parameters(at::kFloat, true);
    tensors[3].gradient.flatten()[200'000] = bad;
    tensors[4].gradient[0] = bad;
    EXPECT_EQ(update_pass(tensors, {}).not_finite, 3);
    for (size_t i = 0; i < tensors.size(); ++i) {
      EXPECT_TRUE(tensors[i].value.equal(before[i].value));
      EXPECT_TRUE(tensors[i].momentum.equal(before[i].momentum));
      EXPECT_TRUE(tensors[i].average.equal(before[i].average));
    }
  }
}

TEST(UpdatePass, RefusesTensorsThatDoNotFit) {
  auto tensors = parameters(at::kFloat, false);
  tensors[0].momentum = at::zeros({16, 3, 3, 2});
  EXPECT_THROW(update_pass(tensors, {}), std::logic_error);
  EXPECT_EQ(update_pass({}, {}).units, 0);
}

}  // namespace
}  // namespace nf::train

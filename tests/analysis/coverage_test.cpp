// Intervals that can be trusted: over tables made anew from a known truth they cover it, and they
// are the same for any number of threads. bench/scaling_coverage does this at full size.
#include <gtest/gtest.h>

#include <cmath>

#include "analysis/cells.h"
#include "analysis/scaling_law.h"
#include "tests/analysis/made_sweep.h"

namespace nf::analysis {
namespace {

std::vector<LawPoint> points_of(const RunSelection& selection) {
  std::vector<LawPoint> points;
  for (const Cell& cell : make_cells(selection, RateGrid{}))
    points.push_back({cell.size, cell.images, cell.loss()});
  return points;
}

TEST(Coverage, IntervalsOfMadeSweepsCoverTheTruth) {
  constexpr int kTables = 16;
  const test::Truth truth;
  int covered_e = 0, covered_alpha = 0, covered_exponent = 0;
  double width_e = 0, width_alpha = 0, width_exponent = 0;
  for (int i = 0; i < kTables; ++i) {
    const auto points = points_of(test::made_sweep(truth, 100 + static_cast<uint64_t>(i)));
    ASSERT_EQ(points.size(), 36u);
    const ScalingLaw law = fit_law(points);
    BootstrapOptions options;
    options.samples = 300;
    const LawBootstrap b = bootstrap_law(points, law, options);
    EXPECT_FALSE(b.convergence.doubtful());
    const Interval e = b.of([](const ScalingLaw& l) { return l.E; });
    const Interval alpha = b.of([](const ScalingLaw& l) { return l.alpha; });
    const Interval exponent = b.of([](const ScalingLaw& l) { return l.exponent_size(); });
    covered_e += e.lo <= truth.E && truth.E <= e.hi;
    covered_alpha += alpha.lo <= truth.alpha && truth.alpha <= alpha.hi;
    covered_exponent += exponent.lo <= 0.5 && 0.5 <= exponent.hi;
    width_e += (e.hi - e.lo) / kTables;
    width_alpha += (alpha.hi - alpha.lo) / kTables;
    width_exponent += (exponent.hi - exponent.lo) / kTables;
  }
  // 90 % of 16 would be 14.4; the full size is in the bench.
  EXPECT_GE(covered_e, 14);
  EXPECT_GE(covered_alpha, 14);
  EXPECT_GE(covered_exponent, 14);
  EXPECT_LE(width_e, 0.14);
  EXPECT_LE(width_alpha, 0.09);
  EXPECT_LE(width_exponent, 0.10);
}

TEST(Recovery, LawWithoutNoiseIsExact) {
  test::Truth truth;
  std::vector<LawPoint> points;
  for (const auto& [model, size] : test::made_models())
    for (const double epochs : {0.25, 1.0, 4.0}) {
      const double images = epochs * test::kImagesPerEpoch;
      points.push_back({size, images, truth.loss(size, images)});
    }
  const ScalingLaw law = fit_law(points);
  EXPECT_NEAR(law.E, truth.E, 1e-6);
  EXPECT_NEAR(law.alpha, truth.alpha, 1e-6);
  EXPECT_NEAR(law.beta, truth.beta, 1e-6);
  // At the best size a small move either way loses.
  const double best = law.best_size(1e21);
  EXPECT_LT(law.loss(best, 1e21 / best), law.loss(best * 1.05, 1e21 / best / 1.05));
  EXPECT_LT(law.loss(best, 1e21 / best), law.loss(best / 1.05, 1e21 / best * 1.05));
}

TEST(Recovery, WorthOfRepeatedImages) {
  constexpr double kU = 1e6, kR = 4;
  std::vector<LawPoint> points;
  for (const double size : {1e9, 3e9, 1e10, 3e10})
    for (const double epochs : {0.5, 1.0, 2.0, 4.0, 8.0, 16.0}) {
      const double counted = effective_images(epochs * kU, kU, kR);
      points.push_back(
          {size, epochs * kU, 0.5 + 80 * std::pow(size, -0.25) + 40 * std::pow(counted, -0.3)});
    }
  const ScalingLaw law = fit_law_with_reuse(points, kU);
  EXPECT_NEAR(law.reuse, kR, 1e-3);
  EXPECT_NEAR(law.beta, 0.3, 1e-4);
  EXPECT_EQ(effective_images(0.5 * kU, kU, kR), 0.5 * kU);
}

TEST(Bootstrap, SameBitsForAnyNumberOfThreads) {
  const auto points = points_of(test::made_sweep({}, 1));
  const ScalingLaw law = fit_law(points);
  std::vector<double> x, y;
  for (const auto& p : points) {
    x.push_back(p.size * p.images);
    y.push_back(p.loss);
  }
  const CurveData data(x, y);
  const CurveFit curve = fit_curve(data, Form::kPowerLawConstant);
  std::vector<Interval> seen;
  for (const int threads : {1, 2, 5}) {
    BootstrapOptions options;
    options.samples = 60;
    options.threads = threads;
    const LawBootstrap b = bootstrap_law(points, law, options);
    const CurveBootstrap c = bootstrap_curve(data, curve, options);
    seen.push_back(b.of([](const ScalingLaw& l) { return l.A; }));
    seen.push_back(c.prediction(1e23, 0.9));
    seen.push_back(c.parameters()[1]);
  }
  for (size_t i = 3; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].lo, seen[i % 3].lo);
    EXPECT_EQ(seen[i].hi, seen[i % 3].hi);
  }
  BootstrapOptions other;
  other.samples = 60;
  other.seed = 2;
  EXPECT_NE(bootstrap_law(points, law, other).of([](const ScalingLaw& l) { return l.A; }).lo,
            seen[0].lo);
}

TEST(Bootstrap, FailuresInThreadsReachTheCaller) {
  EXPECT_THROW(parallel_for(50, 3,
                            [](int i) {
                              if (i == 20) throw std::runtime_error("from a thread");
                            }),
               std::runtime_error);
}

}  // namespace
}  // namespace nf::analysis

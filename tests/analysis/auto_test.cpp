// `auto` on real curves it was not told about: the hidden part of the shared vision curves, a
// factor 2 and a factor 8 beyond what the fit sees. bench/scaling_curves prints the table per
// estimator.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "analysis/bootstrap.h"
#include "analysis/csv.h"
#include "analysis/learning_curve.h"
#include "analysis/statistics.h"
#include "core/atomic_file.h"
#include "core/jsonl.h"
#include "tests/support/paths.h"

namespace nf::analysis {
namespace {

struct VisionCurve {
  std::vector<double> x, y, training;
};

std::vector<VisionCurve> vision_curves() {
  const Json golden = Json::parse(read_file(test::golden("scaling/golden.json")));
  std::vector<VisionCurve> curves;
  for (const Json& g : golden.at("vision_curves")) {
    const Columns c = read_columns(test::golden("scaling/vision_curves_subset.csv"),
                                   {"Seen Examples", "Loss", "Training"},
                                   {{"Task", g.at("task")}, {"Model", g.at("model")}});
    curves.push_back({c.values[0], c.values[1], c.values[2]});
  }
  return curves;
}

struct Score {
  double error = 0;   // mean RMSLE
  double inside = 0;  // share of hidden points in their 90 % interval
  int curves = 0;
};

// cut 0: the benchmark's own split; else points above the largest x / cut are hidden, and curves
// with fewer than 12 points left are not used.
Score score(const std::vector<VisionCurve>& curves, double cut) {
  std::vector<double> errors(curves.size(), NAN), inside(curves.size()), hidden(curves.size());
  parallel_for(static_cast<int>(curves.size()), 0, [&](int c) {
    const auto k = static_cast<size_t>(c);
    const VisionCurve& curve = curves[k];
    const double top = *std::max_element(curve.x.begin(), curve.x.end());
    std::vector<double> x, y, hx, hy, predicted;
    for (size_t i = 0; i < curve.x.size(); ++i) {
      const bool fit = cut == 0 ? curve.training[i] == 1 : curve.x[i] <= top / cut;
      (fit ? x : hx).push_back(curve.x[i]);
      (fit ? y : hy).push_back(curve.y[i]);
    }
    if (cut > 0 && x.size() < 12) return;
    const AutoFit fit = fit_auto(CurveData(x, y));
    for (size_t i = 0; i < hx.size(); ++i) {
      predicted.push_back(fit.predict(hx[i]));
      inside[k] += std::fabs(std::log(hy[i] / predicted[i])) <= fit.log_half_width(hx[i], 0.90);
    }
    hidden[k] = static_cast<double>(hx.size());
    errors[k] = rmsle(predicted, hy);
  });
  Score total;
  double points = 0;
  for (size_t k = 0; k < curves.size(); ++k) {
    if (std::isnan(errors[k])) continue;
    total.error += errors[k];
    total.inside += inside[k];
    points += hidden[k];
    ++total.curves;
  }
  total.error /= total.curves;
  total.inside /= points;
  return total;
}

TEST(Auto, ExtrapolatesVisionCurvesByAFactorTwo) {
  const Score s = score(vision_curves(), 0);
  EXPECT_EQ(s.curves, 24);
  EXPECT_LE(s.error, 0.0210);  // the target for all curves is 0.0300; the best published 0.0406
  EXPECT_GE(s.inside, 0.80);
  EXPECT_LE(s.inside, 0.97);
}

TEST(Auto, ExtrapolatesVisionCurvesByAFactorEight) {
  const Score s = score(vision_curves(), 8);
  EXPECT_EQ(s.curves, 19);
  EXPECT_LE(s.error, 0.0402);  // the target for all curves is 0.060
  EXPECT_GE(s.inside, 0.80);
  EXPECT_LE(s.inside, 0.97);
}

TEST(Auto, FewPointsUsePowerLawsOnly) {
  std::vector<double> x, y;
  for (int i = 0; i < 12; ++i) {
    x.push_back(1e6 * std::pow(2.0, i));
    y.push_back(0.2 + 30 * std::pow(x.back(), -0.3));
  }
  const AutoFit fit = fit_auto(CurveData(x, y));
  for (const CurveFit& member : fit.members) EXPECT_EQ(member.form, Form::kPowerLawConstant);
  EXPECT_NEAR(fit.predict(1e11), 0.2 + 30 * std::pow(1e11, -0.3), 1e-4);
}

}  // namespace
}  // namespace nf::analysis

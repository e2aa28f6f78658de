// The forms of a curve: gradients against automatic differentiation of formulas written anew here,
// recovery of known truths, and what must not change a fit.
#include <ceres/jet.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "analysis/learning_curve.h"
#include "analysis/scaling_law.h"
#include "analysis/statistics.h"
#include "core/rng.h"

namespace nf::analysis {
namespace {

using Jet = ceres::Jet<double, 6>;

// The formulas of the specification, in x and with A, d, E as they stand there.
Jet formula(Form form, const Jet* p, double z) {
  const Jet x = Jet(std::exp(z));
  switch (form) {
    case Form::kPowerLaw:
      return log(exp(p[0]) * pow(x, -p[1]));
    case Form::kPowerLawConstant:
      return log(exp(p[1]) * pow(x, -p[2]) + exp(p[0]));
    case Form::kBroken: {
      const Jet f = exp(p[5]), d = exp(p[3]);
      return log(exp(p[0]) + exp(p[1]) * pow(x, -p[2]) * pow(1.0 + pow(x / d, 1.0 / f), -p[4] * f));
    }
    case Form::kSigmoid: {
      // (L - E) / (E0 - L)^eta = A x^-alpha by bisection; one Newton step carries the derivatives.
      const Jet e = exp(p[0]), e0 = e + exp(p[1]), eta = exp(p[2]);
      const auto gap = [&](const Jet& l) {
        return log(l - e) - eta * log(e0 - l) - (p[3] - p[4] * z);
      };
      double low = e.a, high = e0.a;
      for (int i = 0; i < 200; ++i) {
        const double middle = (low + high) / 2;
        (gap(Jet(middle)).a < 0 ? low : high) = middle;
      }
      const double l = (low + high) / 2;
      const double slope = 1 / (l - e.a) + eta.a / (e0.a - l);
      return log(Jet(l) - gap(Jet(l)) / slope);
    }
  }
  return Jet(0.0);
}

TEST(Forms, GradientsAgreeWithAutomaticDifferentiation) {
  PositionRng rng(7, Stream::kTest, 0);
  for (const Form form :
       {Form::kPowerLaw, Form::kPowerLawConstant, Form::kSigmoid, Form::kBroken}) {
    for (int trial = 0; trial < 200; ++trial) {
      const double z = rng.uniform(-4, 4);
      double p[6] = {rng.uniform(-2, 0.5), rng.uniform(-1.5, 0.5), rng.uniform(-0.8, 0.8),
                     rng.uniform(-1, 1),   rng.uniform(0.05, 1.0), rng.uniform(-1.2, 0.7)};
      if (form == Form::kPowerLaw || form == Form::kPowerLawConstant)
        p[form_parameters(form) - 1] = rng.uniform(0.05, 1.0);
      Jet jets[6];
      for (int i = 0; i < 6; ++i) jets[i] = Jet(p[i], i);
      const Jet expected = formula(form, jets, z);
      double gradient[6];
      const double value = log_form(form, p, z, gradient);
      EXPECT_NEAR(value, expected.a, 1e-11) << form_name(form);
      for (int i = 0; i < form_parameters(form); ++i)
        EXPECT_NEAR(gradient[i], expected.v[i], 1e-8 * (1 + std::fabs(expected.v[i])))
            << form_name(form) << " parameter " << i << " at z = " << z;
    }
  }
}

TEST(Forms, NoOverflowFarFromTheData) {
  for (const double z : {-300.0, 300.0}) {
    const double p[6] = {-1, 0.3, 0.4, 0.2, 0.5, -2};
    for (const Form form :
         {Form::kPowerLaw, Form::kPowerLawConstant, Form::kSigmoid, Form::kBroken}) {
      double gradient[6];
      EXPECT_TRUE(std::isfinite(log_form(form, p, z, gradient))) << form_name(form);
      for (int i = 0; i < form_parameters(form); ++i) EXPECT_TRUE(std::isfinite(gradient[i]));
    }
  }
  EXPECT_EQ(log_sum_exp(1000, -1000), 1000);
}

TEST(RobustFit, HuberAndObjectiveGradient) {
  EXPECT_DOUBLE_EQ(huber(0.5e-3, 1e-3), 0.125e-6);
  EXPECT_DOUBLE_EQ(huber(-3e-3, 1e-3), 1e-3 * 2.5e-3);
  class Line final : public LogModel {
   public:
    int parameters() const override { return 2; }
    size_t points() const override { return 3; }
    double log_value(const double* p, size_t i, double* g) const override {
      const double z = static_cast<double>(i) - 1;
      if (g) g[0] = 1, g[1] = -z;
      return p[0] - p[1] * z;
    }
  };
  const Line line;
  const std::vector<double> target = {0.3, 0.1, -0.2}, weight = {1, 2, 1};
  const RobustProblem problem{&line, target, weight, 0.05};
  const std::vector<double> at = {0.12, 0.2};
  const auto gradient = objective_gradient(problem, at);
  for (size_t i = 0; i < 2; ++i) {
    auto up = at, down = at;
    up[i] += 1e-7;
    down[i] -= 1e-7;
    EXPECT_NEAR(gradient[i], (objective(problem, up) - objective(problem, down)) / 2e-7, 1e-7);
  }
}

struct MadeCurve {
  std::vector<double> x, y;
};

MadeCurve made_curve(double noise, double outliers, uint64_t seed, int n = 60) {
  PositionRng rng(seed, Stream::kTest, 1);
  MadeCurve curve;
  for (int i = 0; i < n; ++i) {
    const double x = 1e6 * std::pow(1e5, i / (n - 1.0));
    double y = (0.35 + 12 * std::pow(x, -0.27)) * std::exp(noise * rng.normal());
    if (rng.uniform() < outliers) y *= rng.uniform() < 0.5 ? 1.3 : 0.75;
    curve.x.push_back(x);
    curve.y.push_back(y);
  }
  return curve;
}

TEST(Recovery, KnownTruthUnderNoiseAndOutliers) {
  // Errors allowed on E and alpha: exact without noise, growing with it; 5 % outliers hardly
  // matter.
  for (const auto& [noise, e_error, alpha_error] :
       {std::tuple(0.0, 1e-6, 1e-6), std::tuple(0.001, 0.003, 0.01), std::tuple(0.01, 0.03, 0.1)}) {
    for (const double outliers : {0.0, 0.05}) {
      const MadeCurve made = made_curve(noise, outliers, 3);
      const CurveFit fit = fit_curve(CurveData(made.x, made.y), Form::kPowerLawConstant);
      const auto named = fit.named();
      const double pull = outliers > 0 ? 1e-3 : 0;  // each outlier pulls with the force of delta
      EXPECT_NEAR(named[0].second, 0.35, 0.35 * (e_error + pull)) << noise << " " << outliers;
      EXPECT_NEAR(named[2].second, 0.27, 0.27 * (alpha_error + pull)) << noise << " " << outliers;
      EXPECT_TRUE(fit.converged);
    }
  }
}

TEST(Recovery, BrokenPowerLaw) {
  std::vector<double> x, y;
  for (int i = 0; i < 60; ++i) {
    x.push_back(1e5 * std::pow(1e6, i / 59.0));
    const double bend = std::pow(1 + std::pow(x.back() / 3e8, 1 / 0.4), -0.35 * 0.4);
    y.push_back(0.1 + 2.5 * std::pow(x.back(), -0.08) * bend);
  }
  const CurveFit fit = fit_curve(CurveData(x, y), Form::kBroken);
  EXPECT_LT(fit.objective, 1e-9);
  EXPECT_NEAR(fit.predict(1e12),
              0.1 + 2.5 * std::pow(1e12, -0.08) * std::pow(1 + std::pow(1e12 / 3e8, 2.5), -0.14),
              1e-3);
}

TEST(Invariance, OrderOfPointsChangesNoBit) {
  MadeCurve made = made_curve(0.01, 0.05, 5, 40);
  for (const Form form :
       {Form::kPowerLaw, Form::kPowerLawConstant, Form::kSigmoid, Form::kBroken}) {
    const CurveFit fit = fit_curve(CurveData(made.x, made.y), form);
    std::vector<double> x(made.x.rbegin(), made.x.rend()), y(made.y.rbegin(), made.y.rend());
    std::rotate(x.begin(), x.begin() + 7, x.end());
    std::rotate(y.begin(), y.begin() + 7, y.end());
    EXPECT_EQ(fit_curve(CurveData(x, y), form).parameters, fit.parameters) << form_name(form);
  }
}

TEST(Invariance, UnitOfXChangesOnlyTheScale) {
  const MadeCurve made = made_curve(0.01, 0.05, 5, 40);
  std::vector<double> scaled = made.x;
  for (double& v : scaled) v *= 1024;
  for (const Form form :
       {Form::kPowerLaw, Form::kPowerLawConstant, Form::kSigmoid, Form::kBroken}) {
    const auto a = fit_curve(CurveData(made.x, made.y), form);
    const auto b = fit_curve(CurveData(scaled, made.y), form);
    EXPECT_NEAR(b.objective / a.objective, 1, 1e-5);
    EXPECT_NEAR(b.predict(1e12 * 1024) / a.predict(1e12), 1, 1e-3) << form_name(form);
    if (form == Form::kPowerLawConstant) {
      EXPECT_NEAR(b.named()[0].second, a.named()[0].second, 1e-6);
      EXPECT_NEAR(b.named()[2].second, a.named()[2].second, 1e-6);
      EXPECT_NEAR(b.named()[1].second / a.named()[1].second, std::pow(1024.0, a.named()[2].second),
                  1e-3);
    }
  }
}

TEST(Invariance, UnitOfSizeAndImagesChangesOnlyAAndB) {
  std::vector<LawPoint> points, scaled;
  PositionRng rng(11, Stream::kTest, 2);
  for (const double size : {1e9, 3e9, 1e10, 4e10})
    for (const double images : {1e6, 4e6, 2e7, 9e7}) {
      const double loss = (0.5 + 80 * std::pow(size, -0.25) + 40 * std::pow(images, -0.3)) *
                          std::exp(0.002 * rng.normal());
      points.push_back({size, images, loss});
      scaled.push_back({size * 1e3, images * 50, loss});
    }
  const ScalingLaw a = fit_law(points), b = fit_law(scaled);
  EXPECT_NEAR(a.E, b.E, 1e-5);
  EXPECT_NEAR(a.alpha, b.alpha, 1e-5);
  EXPECT_NEAR(a.beta, b.beta, 1e-5);
  EXPECT_NEAR(b.A / a.A, std::pow(1e3, a.alpha), 1e-3 * std::pow(1e3, a.alpha));
}

}  // namespace
}  // namespace nf::analysis

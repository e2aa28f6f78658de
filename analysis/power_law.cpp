// See power_law.h.
#include "analysis/power_law.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/learning_curve.h"
#include "analysis/statistics.h"
#include "core/error.h"

namespace nf::analysis {
namespace {

using Starts = std::vector<std::vector<double>>;

class CurveModel final : public LogModel {
 public:
  CurveModel(Form form, const std::vector<double>& z) : form_(form), z_(z) {}
  int parameters() const override { return form_parameters(form_); }
  size_t points() const override { return z_.size(); }
  double log_value(const double* p, size_t i, double* gradient) const override {
    return log_form(form_, p, z_[i], gradient);
  }

 private:
  Form form_;
  const std::vector<double>& z_;
};

class ConstantModel final : public LogModel {
 public:
  explicit ConstantModel(size_t points) : points_(points) {}
  int parameters() const override { return 1; }
  size_t points() const override { return points_; }
  double log_value(const double* p, size_t, double* gradient) const override {
    if (gradient) gradient[0] = 1;
    return p[0];
  }

 private:
  size_t points_;
};

Starts power_law_starts(const CurveData& data) {
  Starts starts;
  for (const double alpha : {0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8}) {
    std::vector<double> a(data.size());
    for (size_t i = 0; i < a.size(); ++i) a[i] = data.log_y()[i] + alpha * data.z()[i];
    starts.push_back({median(a), alpha});
  }
  return starts;
}

Starts constant_starts(const CurveData& data) {
  const double lowest = *std::min_element(data.y().begin(), data.y().end());
  Starts starts;
  for (const double share : {0.001, 0.25, 0.5, 0.75, 0.9, 0.99}) {
    const double e = share * lowest;
    std::vector<double> excess(data.size());
    for (size_t i = 0; i < excess.size(); ++i) excess[i] = std::log(data.y()[i] - e);
    for (const double alpha : {0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2}) {
      std::vector<double> a(data.size());
      for (size_t i = 0; i < a.size(); ++i) a[i] = excess[i] + alpha * data.z()[i];
      starts.push_back({std::log(e), median(a), alpha});
    }
  }
  return starts;
}

Starts starts_of(Form form, const CurveData& data) {
  switch (form) {
    case Form::kPowerLaw:
      return power_law_starts(data);
    case Form::kPowerLawConstant:
      return constant_starts(data);
    case Form::kSigmoid:
      return sigmoid_starts(data);
    case Form::kBroken:
      return broken_starts(data);
  }
  return {};
}

// The law of the fit rises, or stays level, between the ends of the data.
bool rises(Form form, const std::vector<double>& p, const CurveData& data) {
  if (form == Form::kPowerLaw) return p[1] <= 0;
  if (form == Form::kPowerLawConstant) return p[2] <= 0;
  if (form == Form::kSigmoid) return p[4] <= 0;
  return log_form(form, p.data(), data.z().back(), nullptr) >=
         log_form(form, p.data(), data.z().front(), nullptr);
}

CurveFit finish(const CurveData& data, std::span<const double> counts, Form form, double delta,
                Minimum minimum) {
  CurveFit fit{form, data.log_x0(), delta, {}, 0, false, false};
  if (rises(form, minimum.parameters, data)) {
    const ConstantModel constant(data.size());
    const std::vector<std::vector<double>> start = {{median(data.log_y())}};
    minimum = fit_from_starts({&constant, data.log_y(), counts, delta}, start);
    fit.no_trend = true;
  }
  fit.parameters = std::move(minimum.parameters);
  fit.objective = minimum.objective;
  fit.converged = minimum.converged;
  return fit;
}

void check_enough(const CurveData& data, Form form) {
  const int needed = form_least_points(form);
  if (static_cast<int>(data.size()) < needed)
    throw Error(ExitCode::kData, "fit",
                fmt::format("{} points; the form {} needs at least {}", data.size(),
                            form_name(form), needed),
                "give more points, or choose a simpler form");
  const double span = data.x().back() / data.x().front();
  if (!(span >= 2))
    throw Error(ExitCode::kData, "fit",
                span == 1 ? fmt::format("all {} points have x = {}", data.size(), data.x()[0])
                          : fmt::format("x spans only a factor {:.4g}, from {} to {}", span,
                                        data.x().front(), data.x().back()),
                "a law needs x over at least a factor 2");
}

}  // namespace

CurveData::CurveData(std::vector<double> x, std::vector<double> y, const std::string& what) {
  std::vector<size_t> order(x.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (const size_t i : order)
    if (!(x[i] > 0 && y[i] > 0 && std::isfinite(x[i]) && std::isfinite(y[i])))
      throw Error(ExitCode::kData, what,
                  fmt::format("point ({}, {}) is not positive and finite", x[i], y[i]));
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return x[a] != x[b] ? x[a] < x[b] : y[a] < y[b]; });
  for (const size_t i : order) {
    x_.push_back(x[i]);
    y_.push_back(y[i]);
    log_y_.push_back(std::log(y[i]));
    z_.push_back(std::log(x[i]));
  }
  if (x_.empty()) return;
  log_x0_ = mean(z_);
  for (double& z : z_) z -= log_x0_;
}

CurveData CurveData::between(double low, double high) const {
  std::vector<double> x, y;
  for (size_t i = 0; i < size(); ++i) {
    if (x_[i] < low || x_[i] > high) continue;
    x.push_back(x_[i]);
    y.push_back(y_[i]);
  }
  return {std::move(x), std::move(y)};
}

double CurveFit::log_predict(double x) const {
  if (no_trend) return parameters[0];
  return log_form(form, parameters.data(), std::log(x) - log_x0, nullptr);
}

double CurveFit::predict(double x) const { return std::exp(log_predict(x)); }

NamedValues CurveFit::named() const {
  const auto& p = parameters;
  const auto at_one = [&](double a, double alpha) { return std::exp(a + alpha * log_x0); };
  if (no_trend) {
    const double level = std::exp(p[0]);
    if (form == Form::kPowerLaw) return {{"E", 0.0}, {"A", level}, {"alpha", 0.0}};
    if (form == Form::kPowerLawConstant) return {{"E", level}, {"A", 0.0}, {"alpha", 0.0}};
    if (form == Form::kSigmoid)
      return {{"E", level}, {"E0", level}, {"eta", 1.0}, {"A", 0.0}, {"alpha", 0.0}};
    return {{"E", level}, {"b", 0.0}, {"c0", 0.0}, {"d", std::exp(log_x0)},
            {"c1", 0.0},  {"f", 1.0}};
  }
  switch (form) {
    case Form::kPowerLaw:
      return {{"E", 0.0}, {"A", at_one(p[0], p[1])}, {"alpha", p[1]}};
    case Form::kPowerLawConstant:
      return {{"E", std::exp(p[0])}, {"A", at_one(p[1], p[2])}, {"alpha", p[2]}};
    case Form::kSigmoid:
      return {{"E", std::exp(p[0])},
              {"E0", std::exp(p[0]) + std::exp(p[1])},
              {"eta", std::exp(p[2])},
              {"A", at_one(p[3], p[4])},
              {"alpha", p[4]}};
    case Form::kBroken:
      return {{"E", std::exp(p[0])}, {"b", at_one(p[1], p[2])},
              {"c0", p[2]},          {"d", std::exp(p[3] + log_x0)},
              {"c1", p[4]},          {"f", std::exp(p[5])}};
  }
  return {};
}

CurveFit fit_curve(const CurveData& data, Form form, double delta) {
  check_enough(data, form);
  const CurveModel model(form, data.z());
  const RobustProblem problem{&model, data.log_y(), {}, delta};
  return finish(data, {}, form, delta, fit_from_starts(problem, starts_of(form, data)));
}

CurveFit refit_curve(const CurveData& data, std::span<const double> counts, const CurveFit& near) {
  if (near.no_trend) {
    const ConstantModel constant(data.size());
    const Minimum level = fit_warm({&constant, data.log_y(), counts, near.delta}, near.parameters);
    CurveFit fit = near;
    fit.parameters = level.parameters;
    fit.objective = level.objective;
    fit.converged = level.converged;
    return fit;
  }
  const CurveModel model(near.form, data.z());
  const RobustProblem problem{&model, data.log_y(), counts, near.delta};
  return finish(data, counts, near.form, near.delta, fit_warm(problem, near.parameters));
}

std::vector<std::string> curve_warnings(const CurveFit& fit, const CurveData& data) {
  std::vector<std::string> warnings;
  if (fit.no_trend) {
    warnings.push_back("no trend: the loss does not fall with x; alpha = 0");
    return warnings;
  }
  if (fit.form != Form::kPowerLaw) {
    const double lowest = *std::min_element(data.y().begin(), data.y().end());
    const double e = std::exp(fit.parameters[0]);
    if (e < 0.01 * lowest || e > 0.999 * lowest)
      warnings.push_back(fmt::format(
          "irreducible loss not identified: E = {:.6g} beside a lowest loss of {:.6g}", e, lowest));
  }
  if (!fit.converged) warnings.push_back("the fit did not converge");
  return warnings;
}

}  // namespace nf::analysis

// See learning_curve.h.
#include "analysis/learning_curve.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/statistics.h"

namespace nf::analysis {
namespace {

constexpr double kAutoDelta = 1e-2;
constexpr size_t kAutoFewPoints = 20;
constexpr size_t kAutoLeastPoints = 6;
constexpr size_t kAnchorLeastPoints = 5;
// The members see the same data, so their errors go together: their spread understates the error.
constexpr double kSpreadFactor = 1.4;

double lowest(const CurveData& data) { return *std::min_element(data.y().begin(), data.y().end()); }
double highest(const CurveData& data) {
  return *std::max_element(data.y().begin(), data.y().end());
}

// A root of a function that changes sign once between low and high.
template <class F>
double bisect(const F& f, double low, double high) {
  const bool sign = f(low) > 0;
  for (int i = 0; i < 200 && high - low > 1e-13 * std::max(1.0, std::fabs(low)); ++i) {
    const double middle = (low + high) / 2;
    ((f(middle) > 0) == sign ? low : high) = middle;
  }
  return (low + high) / 2;
}

// Where sigmoid_slope is largest: the scan brackets it, its derivative's sign finds it.
double steepest(const double* p) {
  constexpr double kEnd = 60, kStep = 0.05;
  double best = -kEnd;
  for (double t = -kEnd; t <= kEnd; t += kStep)
    if (sigmoid_slope(p, t) > sigmoid_slope(p, best)) best = t;
  const auto rise = [&](double t) {
    return sigmoid_slope(p, t + 1e-5) - sigmoid_slope(p, t - 1e-5);
  };
  return bisect(rise, best - kStep, best + kStep);
}

}  // namespace

std::vector<std::vector<double>> sigmoid_starts(const CurveData& data) {
  std::vector<std::vector<double>> starts;
  for (const double low : {0.05, 0.5, 0.9})
    for (const double high : {1.02, 1.5})
      for (const double eta : {0.4, 1.0, 2.0}) {
        const double e = low * lowest(data), e0 = high * highest(data);
        for (const double alpha : {0.15, 0.4, 0.8}) {
          std::vector<double> a(data.size());
          for (size_t i = 0; i < a.size(); ++i)
            a[i] =
                std::log(data.y()[i] - e) - eta * std::log(e0 - data.y()[i]) + alpha * data.z()[i];
          starts.push_back({std::log(e), std::log(e0 - e), std::log(eta), median(a), alpha});
        }
      }
  return starts;
}

std::vector<std::vector<double>> broken_starts(const CurveData& data) {
  std::vector<std::vector<double>> starts;
  for (const double share : {0.01, 0.5, 0.9})
    for (const double place : {0.2, 0.45, 0.7})
      for (const double c0 : {0.05, 0.25})
        for (const double c1 : {-0.1, 0.2, 0.5})
          for (const double f : {0.3, 1.0}) {
            const double e = share * lowest(data), d = quantile(data.z(), place);
            std::vector<double> b(data.size());
            for (size_t i = 0; i < b.size(); ++i)
              b[i] = std::log(data.y()[i] - e) + c0 * data.z()[i] +
                     c1 * f * softplus((data.z()[i] - d) / f);
            starts.push_back({std::log(e), median(b), c0, d, c1, std::log(f)});
          }
  return starts;
}

std::optional<Regions> find_regions(const CurveFit& sigmoid, const CurveData& data) {
  if (sigmoid.no_trend) return std::nullopt;
  const double* p = sigmoid.parameters.data();
  const double top = steepest(p);
  Regions regions{};
  regions.max_slope = sigmoid_slope(p, top);
  const auto above_half = [&](double t) { return sigmoid_slope(p, t) - regions.max_slope / 2; };
  const auto x_of = [&](double t) { return std::exp(sigmoid_z(p, t) + sigmoid.log_x0); };
  // t rises with the loss, so x falls with t.
  regions.x_at_max = x_of(top);
  regions.x_hi = x_of(bisect(above_half, top - 100, top));
  regions.x_lo = x_of(bisect(above_half, top, top + 100));
  for (const double x : data.x())
    ++regions.points[x < regions.x_lo ? 0 : x <= regions.x_hi ? 1 : 2];
  return regions;
}

double AutoFit::log_predict(double x) const {
  double sum = log_shift;
  for (size_t i = 0; i < members.size(); ++i) sum += weights[i] * members[i].log_predict(x);
  return sum;
}

double AutoFit::predict(double x) const { return std::exp(log_predict(x)); }

double AutoFit::log_half_width(double x, double share) const {
  const double centre = log_predict(x) - log_shift;
  double spread = 0;
  for (size_t i = 0; i < members.size(); ++i) {
    const double off = members[i].log_predict(x) - centre;
    spread += weights[i] * off * off;
  }
  const double sd =
      std::sqrt(kSpreadFactor * kSpreadFactor * spread + residual_scale * residual_scale);
  return normal_quantile((1 + share) / 2) * sd;
}

AutoFit fit_auto(const CurveData& data) {
  AutoFit fit;
  fit.overall = fit_curve(data, Form::kPowerLawConstant, kAutoDelta);
  const double log_low = std::log(data.x().front());
  const double log_range = std::log(data.x().back()) - log_low;
  const auto from = [&](double share) {
    return data.between(std::exp(log_low + log_range * share) * (1 - 1e-12),
                        std::numeric_limits<double>::infinity());
  };
  fit.members.push_back(fit.overall);
  for (int tenths = 1; tenths <= 6; ++tenths) {
    const CurveData tail = from(tenths / 10.0);
    if (tail.size() < kAutoLeastPoints || tail.x().back() < 2 * tail.x().front()) break;
    fit.members.push_back(fit_curve(tail, Form::kPowerLawConstant, kAutoDelta));
  }
  const bool few = data.size() < kAutoFewPoints;
  const double each = (few ? 1.0 : 0.5) / static_cast<double>(fit.members.size());
  fit.weights.assign(fit.members.size(), each);
  if (!few) {
    for (const Form form : {Form::kSigmoid, Form::kBroken}) {
      fit.members.push_back(fit_curve(data, form, kAutoDelta));
      fit.weights.push_back(0.25);
    }
  }
  const auto residuals = [&](const CurveData& points) {
    std::vector<double> out;
    for (size_t i = 0; i < points.size(); ++i)
      out.push_back(points.log_y()[i] - fit.log_predict(points.x()[i]));
    return out;
  };
  const CurveData last = from(0.9);
  if (last.size() >= kAnchorLeastPoints) fit.log_shift = median(residuals(last));
  std::vector<double> sizes = residuals(data);
  for (double& r : sizes) r = std::fabs(r);
  fit.residual_scale = 1.4826 * median(sizes);
  return fit;
}

}  // namespace nf::analysis

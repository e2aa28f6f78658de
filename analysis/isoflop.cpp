// See isoflop.h.
#include "analysis/isoflop.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "core/check.h"
#include "core/error.h"

namespace nf::analysis {
namespace {

constexpr double kSameBudget = 1.1;
constexpr int kGridPerSegment = 25;
constexpr size_t kLeastSizes = 4;

// Points of one budget, one a size (several: the mean of ln loss).
Isoflop::Curve curve_of(const std::vector<IsoflopPoint>& points, size_t begin, size_t end) {
  Isoflop::Curve curve{};
  std::vector<double> budgets;
  for (size_t i = begin; i < end; ++i) budgets.push_back(points[i].group);
  curve.group = median(budgets);
  std::vector<IsoflopPoint> by_size(points.begin() + static_cast<ptrdiff_t>(begin),
                                    points.begin() + static_cast<ptrdiff_t>(end));
  std::sort(by_size.begin(), by_size.end(), [](const auto& a, const auto& b) {
    return std::tie(a.size, a.loss) < std::tie(b.size, b.loss);
  });
  for (size_t i = 0; i < by_size.size();) {
    std::vector<double> logs;
    const double size = by_size[i].size;
    for (; i < by_size.size() && by_size[i].size == size; ++i)
      logs.push_back(std::log(by_size[i].loss));
    curve.sizes.push_back(size);
    curve.losses.push_back(std::exp(mean(logs)));
  }
  return curve;
}

void find_optimum(const Isoflop::Curve& curve, Isoflop& result) {
  const auto drop = [&](std::string reason) {
    result.dropped.push_back({curve.group, std::move(reason)});
  };
  if (curve.sizes.size() < kLeastSizes)
    return drop(fmt::format("{} sizes; at least {} are needed", curve.sizes.size(), kLeastSizes));
  std::vector<double> n, l;
  for (size_t i = 0; i < curve.sizes.size(); ++i) {
    n.push_back(std::log(curve.sizes[i]));
    l.push_back(std::log(curve.losses[i]));
  }
  const AkimaSpline spline(n, l);
  const int cells = kGridPerSegment * static_cast<int>(n.size() - 1);
  double best_n = n[0], best_l = spline(n[0]);
  int best = 0;
  for (int i = 1; i < cells; ++i) {
    const double at = n.front() + (n.back() - n.front()) * i / (cells - 1);
    const double value = spline(at);
    if (value < best_l) std::tie(best, best_n, best_l) = std::tuple(i, at, value);
  }
  if (best == 0) return drop("the smallest size is the best: the minimum is not bracketed");
  if (best == cells - 1) return drop("the largest size is the best: the minimum is not bracketed");
  result.optima.push_back({curve.group, std::exp(best_n), std::exp(best_l)});
}

// Least squares of ln size on ln group, each optimum counted `counts` times.
bool fit_line(const std::vector<Isoflop::Optimum>& optima, const std::vector<double>& counts,
              double* exponent, double* coefficient) {
  double w = 0, mx = 0, my = 0, xx = 0, xy = 0;
  for (size_t i = 0; i < optima.size(); ++i) {
    w += counts[i];
    mx += counts[i] * std::log(optima[i].group);
    my += counts[i] * std::log(optima[i].size);
  }
  mx /= w;
  my /= w;
  for (size_t i = 0; i < optima.size(); ++i) {
    const double x = std::log(optima[i].group) - mx;
    xx += counts[i] * x * x;
    xy += counts[i] * x * (std::log(optima[i].size) - my);
  }
  if (!(xx > 0)) return false;
  *exponent = xy / xx;
  *coefficient = std::exp(my - *exponent * mx);
  return true;
}

}  // namespace

AkimaSpline::AkimaSpline(std::vector<double> x, std::vector<double> y)
    : x_(std::move(x)), y_(std::move(y)) {
  const size_t n = x_.size();
  NF_CHECK(n >= 2 && y_.size() == n);
  // Segment slopes m[2 .. n], with two more at each end by linear extrapolation.
  std::vector<double> m(n + 3);
  for (size_t i = 0; i + 1 < n; ++i) m[i + 2] = (y_[i + 1] - y_[i]) / (x_[i + 1] - x_[i]);
  if (n == 2) m[3] = m[2];
  m[1] = 2 * m[2] - m[3];
  m[0] = 2 * m[1] - m[2];
  m[n + 1] = 2 * m[n] - m[n - 1];
  m[n + 2] = 2 * m[n + 1] - m[n];
  double largest = 0;
  const auto left = [&](size_t i) { return std::fabs(m[i + 1] - m[i]); };
  const auto right = [&](size_t i) { return std::fabs(m[i + 3] - m[i + 2]); };
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, left(i) + right(i));
  for (size_t i = 0; i < n; ++i) {
    const double sum = left(i) + right(i);
    slope_.push_back(sum > 1e-9 * largest ? (right(i) * m[i + 1] + left(i) * m[i + 2]) / sum
                                          : (m[i] + m[i + 3]) / 2);
  }
}

double AkimaSpline::operator()(double x) const {
  const auto above = std::upper_bound(x_.begin() + 1, x_.end() - 1, x);
  const size_t i = static_cast<size_t>(above - x_.begin()) - 1;
  const double h = x_[i + 1] - x_[i], u = x - x_[i], m = (y_[i + 1] - y_[i]) / h;
  const double c = (3 * m - 2 * slope_[i] - slope_[i + 1]) / h;
  const double d = (slope_[i] + slope_[i + 1] - 2 * m) / (h * h);
  return y_[i] + u * (slope_[i] + u * (c + u * d));
}

Isoflop fit_isoflop(std::vector<IsoflopPoint> points, const BootstrapOptions& options) {
  std::sort(points.begin(), points.end(), [](const auto& a, const auto& b) {
    return std::tie(a.group, a.size, a.loss) < std::tie(b.group, b.size, b.loss);
  });
  Isoflop result;
  for (size_t begin = 0; begin < points.size();) {
    size_t end = begin;
    while (end < points.size() && points[end].group <= kSameBudget * points[begin].group) ++end;
    result.curves.push_back(curve_of(points, begin, end));
    find_optimum(result.curves.back(), result);
    begin = end;
  }
  std::vector<double> once(result.optima.size(), 1.0);
  if (result.optima.size() < 2 ||
      !fit_line(result.optima, once, &result.exponent, &result.coefficient))
    throw Error(ExitCode::kData, "isoflop",
                fmt::format("{} of {} budgets have their minimum inside the sizes tried; at least "
                            "2 are needed",
                            result.optima.size(), result.curves.size()),
                "add smaller or larger models to the budgets whose best is at the end");
  std::vector<double> exponents, coefficients;
  for (int b = 0; b < options.samples; ++b) {
    double exponent = 0, coefficient = 0;
    if (!fit_line(result.optima, draw_counts(options.seed, b, once.size()), &exponent,
                  &coefficient))
      continue;
    exponents.push_back(exponent);
    coefficients.push_back(coefficient);
  }
  result.exponent_ci95 = central_interval(std::move(exponents), 0.95);
  result.coefficient_ci95 = central_interval(std::move(coefficients), 0.95);
  return result;
}

}  // namespace nf::analysis

// See lr_trend.h.
#include "analysis/lr_trend.h"

#include <fmt/format.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

namespace nf::analysis {
namespace {

constexpr double kBelowCap = 0.25;

double smallest_size(std::span<const RatePoint> points) {
  double smallest = points.empty() ? 1.0 : points[0].size;
  for (const auto& p : points) smallest = std::min(smallest, p.size);
  return smallest;
}

// Which of 1, f, e, f e enter with so many cells.
std::vector<int> terms_of(size_t cells) {
  if (cells >= 6) return {0, 1, 2, 3};
  if (cells >= 4) return {0, 1, 2};
  return {0, 2};
}

double term(int which, double f, double e) {
  const double terms[] = {1, f, e, f * e};
  return terms[which];
}

std::array<double, 4> least_squares(const std::vector<RatePoint>& points, double smallest) {
  const auto terms = terms_of(points.size());
  Eigen::MatrixXd a(points.size(), terms.size());
  Eigen::VectorXd b(points.size());
  for (size_t i = 0; i < points.size(); ++i) {
    const double f = std::log2(points[i].size / smallest), e = std::log2(points[i].epochs);
    for (size_t j = 0; j < terms.size(); ++j)
      a(static_cast<Eigen::Index>(i), static_cast<Eigen::Index>(j)) = term(terms[j], f, e);
    b(static_cast<Eigen::Index>(i)) = points[i].log2_rate;
  }
  // Rank-revealing: one model or one budget leaves its term at zero.
  const Eigen::VectorXd c = a.completeOrthogonalDecomposition().solve(b);
  std::array<double, 4> coefficients{};
  for (size_t j = 0; j < terms.size(); ++j)
    coefficients[static_cast<size_t>(terms[j])] = c(static_cast<Eigen::Index>(j));
  return coefficients;
}

double uncapped(const RateTrend& trend, double size, double epochs) {
  const double f = std::log2(size / trend.smallest_size), e = std::log2(epochs);
  double sum = 0;
  for (int i = 0; i < 4; ++i) sum += trend.coefficients[static_cast<size_t>(i)] * term(i, f, e);
  return sum;
}

}  // namespace

double RateTrend::log2_rate(double size, double epochs) const {
  if (cells_used < 2) return cap_log2;
  return std::min(cap_log2, uncapped(*this, size, epochs));
}

RateTrend fit_rate_trend(std::span<const RatePoint> points, double cap) {
  RateTrend trend;
  trend.cap_log2 = std::log2(cap);
  trend.smallest_size = smallest_size(points);
  std::vector<bool> in(points.size());
  const auto observed_below = [&](size_t i) {
    return points[i].log2_rate < trend.cap_log2 - kBelowCap;
  };
  for (size_t i = 0; i < points.size(); ++i) in[i] = observed_below(i);
  std::vector<RatePoint> used;
  for (int round = 0; round < 20; ++round) {
    used.clear();
    for (size_t i = 0; i < points.size(); ++i)
      if (in[i]) used.push_back(points[i]);
    trend.cells_used = static_cast<int>(used.size());
    if (used.size() < 2) return trend;
    trend.coefficients = least_squares(used, trend.smallest_size);
    std::vector<bool> next(points.size());
    for (size_t i = 0; i < points.size(); ++i)
      next[i] =
          observed_below(i) || uncapped(trend, points[i].size, points[i].epochs) < trend.cap_log2;
    if (next == in) break;
    in = next;
  }
  double squares = 0;
  for (const auto& p : points) {
    const double off = trend.log2_rate(p.size, p.epochs) - p.log2_rate;
    squares += off * off;
  }
  trend.rms_log2 = std::sqrt(squares / static_cast<double>(points.size()));
  return trend;
}

std::vector<std::string> rate_trend_warnings(const RateTrend& trend) {
  std::vector<std::string> warnings;
  if (trend.cells_used < 2) {
    warnings.push_back(
        "learning-rate trend: fewer than 2 cells lie below the cap; the cap is predicted");
    return warnings;
  }
  if (trend.coefficients[2] > 0)
    warnings.push_back(fmt::format(
        "learning-rate trend: the best rate rises with epochs (c2 = {:.4g}), against what the "
        "published study found",
        trend.coefficients[2]));
  if (trend.coefficients[3] > 0)
    warnings.push_back(fmt::format(
        "learning-rate trend: larger models keep larger rates over long runs (c12 = {:.4g}), "
        "against what the published study found",
        trend.coefficients[3]));
  return warnings;
}

double DampedTrend::log2_rate(double size, double epochs) const {
  return c0 + c1 * std::log2(size / smallest_size) + c2 * std::log2(epochs);
}

DampedTrend fit_damped_trend(std::span<const RatePoint> points, double damping) {
  DampedTrend trend;
  trend.smallest_size = smallest_size(points);
  // The damping enters as two more equations: sqrt(damping) c1 = 0, sqrt(damping) c2 = 0.
  const auto n = static_cast<Eigen::Index>(points.size());
  Eigen::MatrixXd a = Eigen::MatrixXd::Zero(n + 2, 3);
  Eigen::VectorXd b = Eigen::VectorXd::Zero(n + 2);
  for (Eigen::Index i = 0; i < n; ++i) {
    const RatePoint& p = points[static_cast<size_t>(i)];
    a(i, 0) = 1;
    a(i, 1) = std::log2(p.size / trend.smallest_size);
    a(i, 2) = std::log2(p.epochs);
    b(i) = p.log2_rate;
  }
  a(n, 1) = a(n + 1, 2) = std::sqrt(damping);
  const Eigen::VectorXd c = a.completeOrthogonalDecomposition().solve(b);
  trend.c0 = c(0);
  trend.c1 = c(1);
  trend.c2 = c(2);
  return trend;
}

}  // namespace nf::analysis

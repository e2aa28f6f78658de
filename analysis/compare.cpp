// See compare.h.
#include "analysis/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace nf::analysis {
namespace {

constexpr int kSteps = 400;

// ln x of every crossing of two curves between low and high (in ln x).
std::vector<double> crossings(const CurveFit& a, const CurveFit& b, double low, double high) {
  const auto gap = [&](double t) { return a.log_predict(std::exp(t)) - b.log_predict(std::exp(t)); };
  std::vector<double> found;
  double left = low, value = gap(low);
  for (int i = 1; i <= kSteps; ++i) {
    const double right = low + (high - low) * i / kSteps;
    const double next = gap(right);
    if ((value > 0) != (next > 0)) {
      double l = left, r = right;
      for (int k = 0; k < 60; ++k) {
        const double middle = (l + r) / 2;
        ((gap(middle) > 0) == (value > 0) ? l : r) = middle;
      }
      found.push_back((l + r) / 2);
    }
    left = right;
    value = next;
  }
  return found;
}

}  // namespace

Comparison compare_curves(const CurveData& a, const CurveData& b, Form form, double delta,
                          const BootstrapOptions& options) {
  Comparison result;
  result.a = fit_curve(a, form, delta);
  result.b = fit_curve(b, form, delta);
  result.x_start = std::max(a.x().front(), b.x().front());
  result.x_end = std::min(a.x().back(), b.x().back());
  if (!(result.x_start < result.x_end))
    throw Error(ExitCode::kData, "compare",
                fmt::format("the tables share no range of x: {} to {} and {} to {}", a.x().front(),
                            a.x().back(), b.x().front(), b.x().back()),
                "both families must be measured over one range");
  const double low = std::log(result.x_start), high = std::log(result.x_end);
  const auto ahead = [&](double x) {
    return std::string(1, result.a.log_predict(x) <= result.b.log_predict(x) ? 'A' : 'B');
  };
  result.ahead_at_start = ahead(result.x_start);
  result.ahead_at_end = ahead(result.x_end);
  const auto found = crossings(result.a, result.b, low, high);
  if (found.empty()) {
    result.warnings.push_back("no crossing in the data range");
    return result;
  }
  // In each pair of samples the crossing nearest to ours; samples that cross nowhere are left out.
  BootstrapOptions other = options;
  other.seed = options.seed + 1;
  const CurveBootstrap ba = bootstrap_curve(a, result.a, options);
  const CurveBootstrap bb = bootstrap_curve(b, result.b, other);
  const size_t n = std::min(ba.fits.size(), bb.fits.size());
  std::vector<std::vector<double>> near(found.size());
  size_t without = 0;
  const double margin = std::log(2.0);
  std::vector<std::vector<double>> each(n);
  parallel_for(static_cast<int>(n), options.threads, [&](int i) {
    const auto k = static_cast<size_t>(i);
    each[k] = crossings(ba.fits[k], bb.fits[k], low - margin, high + margin);
  });
  for (const auto& sample : each) {
    if (sample.empty()) ++without;
    for (size_t c = 0; c < found.size() && !sample.empty(); ++c)
      near[c].push_back(*std::min_element(sample.begin(), sample.end(), [&](double p, double q) {
        return std::fabs(p - found[c]) < std::fabs(q - found[c]);
      }));
  }
  for (size_t c = 0; c < found.size(); ++c) {
    Interval ci = central_interval(near[c], 0.95);
    result.crossings.push_back({std::exp(found[c]), {std::exp(ci.lo), std::exp(ci.hi)}});
  }
  if (10 * without > n)
    result.warnings.push_back(
        fmt::format("in {} of {} bootstrap samples the curves do not cross", without, n));
  return result;
}

}  // namespace nf::analysis

// See statistics.h.
#include "analysis/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/check.h"

namespace nf::analysis {
namespace {
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return quantile(values, 0.5);
}

double quantile(const std::vector<double>& sorted, double q) {
  if (sorted.empty()) return kNone;
  const double place = q * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double share = place - static_cast<double>(below);
  return sorted[below] * (1 - share) + sorted[above] * share;
}

double rmsle(const std::vector<double>& predicted, const std::vector<double>& measured) {
  NF_CHECK(predicted.size() == measured.size());
  if (predicted.empty()) return kNone;
  double sum = 0;
  for (size_t i = 0; i < predicted.size(); ++i) {
    const double r = std::log(predicted[i]) - std::log(measured[i]);
    sum += r * r;
  }
  return std::sqrt(sum / static_cast<double>(predicted.size()));
}

double normal_quantile(double q) {
  NF_CHECK(q > 0 && q < 1);
  double low = -40, high = 40;
  for (int i = 0; i < 80; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < q ? low : high) = middle;
  }
  return (low + high) / 2;
}

Interval central_interval(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return {quantile(values, (1 - share) / 2), quantile(values, (1 + share) / 2)};
}

}  // namespace nf::analysis

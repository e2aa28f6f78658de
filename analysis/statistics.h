// Small statistics that every fit needs.
#pragma once

#include <vector>

namespace nf::analysis {

double mean(const std::vector<double>& values);  // 0 for none
double median(std::vector<double> values);       // mean of the middle two; NaN for none
// Linear interpolation between order statistics of sorted values, q in [0, 1]; NaN for none.
double quantile(const std::vector<double>& sorted, double q);
// sqrt(mean((ln a - ln b)^2)) of predictions against measurements; NaN for none.
double rmsle(const std::vector<double>& predicted, const std::vector<double>& measured);

double normal_quantile(double q);  // of the standard normal, q in (0, 1)

struct Interval {
  double lo, hi;
};
// The central interval that holds `share` of the values (0.95: 2.5 and 97.5 percentiles).
Interval central_interval(std::vector<double> values, double share);

}  // namespace nf::analysis

// Learning curves beyond the power law: starts of the sigmoid and broken forms, the three regions of
// a curve (arXiv 1712.00409), and `auto`, which extrapolates with several forms at once.
#pragma once

#include <array>
#include <optional>

#include "analysis/power_law.h"

namespace nf::analysis {

std::vector<std::vector<double>> sigmoid_starts(const CurveData& data);
std::vector<std::vector<double>> broken_starts(const CurveData& data);

// The power-law region of a sigmoid fit: where the local slope is at least half its maximum; left
// of it the small-data region (best guess), right of it the irreducible one.
struct Regions {
  double x_lo, x_hi, x_at_max, max_slope;
  std::array<int, 3> points;  // in each region, from the left
};
// Nothing where the fit has no trend.
std::optional<Regions> find_regions(const CurveFit& sigmoid, const CurveData& data);

// The mean of ln predictions of several fits.
struct AutoFit {
  std::vector<CurveFit> members;  // the power laws first, then sigmoid and broken where used
  CurveFit overall;               // plc on all points: the parameters to show
  double log_predict(double x) const;
  double predict(double x) const;
};
AutoFit fit_auto(const CurveData& data);

}  // namespace nf::analysis

// Learning curves beyond the power law: starts of the sigmoid and broken forms, the three regions
// of a curve (arXiv 1712.00409), and `auto`, which extrapolates with several forms at once.
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

// Several forms at once: half the weight on `plc` fits that drop the first 0, 10, .. 60 % of the
// log range, a quarter each on `sigmoid` and `broken` (from 20 points on), moved so that the median
// residual of the last tenth of the log range is zero. The same rule for every curve
// (docs/decisions/010 says how it was chosen).
struct AutoFit {
  std::vector<CurveFit> members;  // the power laws first, then sigmoid and broken where used
  std::vector<double> weights;    // sum 1
  CurveFit overall;               // plc on all points: the parameters to show
  double log_shift = 0;           // added to the weighted mean of ln predictions
  double residual_scale = 0;      // of ln y around the combination, robust
  double log_predict(double x) const;
  double predict(double x) const;
  // Half the width, in ln y, of the interval that holds `share` of new points at x: the spread
  // between the members and the residuals.
  double log_half_width(double x, double share) const;
};
AutoFit fit_auto(const CurveData& data);

}  // namespace nf::analysis

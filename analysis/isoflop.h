// Iso-FLOP analysis: runs of equal compute and different size; the best size of each budget by an
// Akima spline of ln L over ln n (H. Akima, J. ACM 17, 1970), and its power law over budgets.
#pragma once

#include <string>
#include <vector>

#include "analysis/bootstrap.h"

namespace nf::analysis {

// Piecewise cubic through the points, without the overshoot of a global spline.
class AkimaSpline {
 public:
  AkimaSpline(std::vector<double> x, std::vector<double> y);  // x increasing, at least 2 points
  double operator()(double x) const;

 private:
  std::vector<double> x_, y_, slope_;
};

struct IsoflopPoint {
  double group, size, loss;  // group: the budget
};

struct Isoflop {
  struct Optimum {
    double group, size, loss;
  };
  struct Dropped {
    double group;
    std::string reason;
  };
  struct Curve {
    double group;
    std::vector<double> sizes, losses;  // measured, one a size
  };
  std::vector<Optimum> optima;
  std::vector<Dropped> dropped;
  std::vector<Curve> curves;
  double exponent = 0, coefficient = 0;  // size = coefficient group^exponent
  Interval exponent_ci95{}, coefficient_ci95{};
};

// Budgets within 10 % are one group. Throws Error(kData) when fewer than 2 optima are left.
Isoflop fit_isoflop(std::vector<IsoflopPoint> points, const BootstrapOptions& options);

}  // namespace nf::analysis

// Robust fits of logarithms: minimises sum_i w_i Huber(ln f(x_i) - ln y_i) over the parameters of a
// law, with Ceres. The SUM is divided by delta^2 before the solver sees it: the mean, or the raw
// sum of about 1e-3, makes default stopping rules end far from the optimum (arXiv 2404.10102 found
// this fault in a published fit). Free of Ceres' headers, so that users of fits compile fast.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace nf::analysis {

inline constexpr double kDefaultDelta = 1e-3;

// A law with parameters p, at the points of a data set.
class LogModel {
 public:
  virtual ~LogModel() = default;
  virtual int parameters() const = 0;
  virtual size_t points() const = 0;
  // ln f at point i. gradient (parameters() numbers) may be null.
  virtual double log_value(const double* p, size_t i, double* gradient) const = 0;
};

struct RobustProblem {
  const LogModel* model;
  std::span<const double> log_target;  // ln y, one a point
  std::span<const double> weight;      // empty: 1 each; a bootstrap sample gives counts
  double delta = kDefaultDelta;
};

struct Minimum {
  std::vector<double> parameters;
  double objective = 0;  // the raw sum
  bool converged = false;
};

// r^2/2 for |r| <= delta, else delta (|r| - delta/2).
double huber(double r, double delta);
// The raw sum; not finite when the law is not.
double objective(const RobustProblem& problem, std::span<const double> parameters);
// The raw sum's gradient.
std::vector<double> objective_gradient(const RobustProblem& problem,
                                       std::span<const double> parameters);

// BFGS from every start, the best few end points polished (BFGS and Levenberg-Marquardt in turn
// until neither improves). Of more than 5,000 points the starts see a fixed sample, all points only
// the last descent.
Minimum fit_from_starts(const RobustProblem& problem, std::span<const std::vector<double>> starts);
// One descent from a good start: what a bootstrap sample needs.
Minimum fit_warm(const RobustProblem& problem, std::span<const double> start);

}  // namespace nf::analysis

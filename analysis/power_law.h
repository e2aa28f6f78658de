// Fits of one variable: ln y against z = ln(x / x0), x0 the geometric mean of x (without centring
// the valley is too narrow for quasi-Newton steps). Here: the data, the result of any form, and the
// power laws with and without a constant; learning_curve.h has the other forms.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "analysis/forms.h"
#include "analysis/robust_fit.h"

namespace nf::analysis {

// Points with positive finite x and y, in order of (x, y): the order in which they were given
// cannot change a bit of the fit.
class CurveData {
 public:
  // Throws Error(kData) naming `what` where a point is not positive and finite.
  CurveData(std::vector<double> x, std::vector<double> y, const std::string& what = "curve");
  size_t size() const { return x_.size(); }
  const std::vector<double>& x() const { return x_; }
  const std::vector<double>& y() const { return y_; }
  const std::vector<double>& log_y() const { return log_y_; }
  const std::vector<double>& z() const { return z_; }
  double log_x0() const { return log_x0_; }
  // The points with x in [low, high]; they keep their own centre.
  CurveData between(double low, double high) const;

 private:
  std::vector<double> x_, y_, log_y_, z_;
  double log_x0_ = 0;
};

using NamedValues = std::vector<std::pair<std::string, double>>;

struct CurveFit {
  Form form = Form::kPowerLawConstant;
  double log_x0 = 0;
  double delta = kDefaultDelta;
  std::vector<double> parameters;  // as forms.h has them
  double objective = 0;
  bool converged = false;
  bool no_trend = false;  // wanted a law that rises with x: the constant exp(parameters[0]) instead

  double log_predict(double x) const;
  double predict(double x) const;
  // The parameters of the formulas: E, A, alpha; sigmoid also E0, eta; broken E, b, c0, d, c1, f.
  NamedValues named() const;
};

// The best fit of a form. Throws Error(kData) for fewer points than the form needs, for x all equal
// or spanning less than a factor 2.
CurveFit fit_curve(const CurveData& data, Form form, double delta = kDefaultDelta);
// The same law again for a bootstrap sample, given as how often each point was drawn.
CurveFit refit_curve(const CurveData& data, std::span<const double> counts, const CurveFit& near);

// What a user must know about a fit: "no trend", "irreducible loss not identified".
std::vector<std::string> curve_warnings(const CurveFit& fit, const CurveData& data);

}  // namespace nf::analysis

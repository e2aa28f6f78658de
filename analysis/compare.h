// Two families on one axis: where their fitted curves cross, and which is ahead at both ends. More
// structure wins at small scale, less at large; the crossing tells on which side a budget lies.
#pragma once

#include <string>
#include <vector>

#include "analysis/bootstrap.h"

namespace nf::analysis {

struct Crossing {
  double x;
  Interval ci95;
};
struct Comparison {
  double x_start = 0, x_end = 0;  // the range that both tables cover
  std::vector<Crossing> crossings;
  std::string ahead_at_start, ahead_at_end;  // "A" or "B": the lower loss
  std::vector<std::string> warnings;
};

// `forms` are averaged in ln loss: with several the crossing does not hang on one shape. Throws
// Error(kData) when the two ranges of x do not overlap.
Comparison compare_curves(const CurveData& a, const CurveData& b, const std::vector<Form>& forms,
                          double delta, const BootstrapOptions& options);
// The flexible forms that so many points allow: sigmoid and broken, else sigmoid, plc or pl.
std::vector<Form> flexible_forms(size_t points);

}  // namespace nf::analysis

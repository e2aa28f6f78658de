// How the best learning rate falls with epochs and model size: the capped trend of the study (its
// Figure 3), and the damped one from which a sweep's next cell starts.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

namespace nf::analysis {

struct RatePoint {
  double size;  // train FLOPs an image
  double epochs;
  double log2_rate;  // the cell's optimum
};

// log2 lr = min(cap, c0 + c1 f + c2 e + c12 f e), f = log2(size / smallest), e = log2(epochs).
struct RateTrend {
  std::array<double, 4> coefficients{};  // c0, c1, c2, c12
  double cap_log2 = 0;
  double smallest_size = 0;
  int cells_used = 0;
  double rms_log2 = 0;  // of the capped trend over all cells
  double log2_rate(double size, double epochs) const;
};

inline constexpr double kRateCap = 1.6;  // the ceiling that small budgets show

// Cells below the cap decide; fewer than 6: no c12; fewer than 4: c0 and c2; fewer than 2: the cap.
RateTrend fit_rate_trend(std::span<const RatePoint> points, double cap = kRateCap);
// "contradicts the published trend" and the like.
std::vector<std::string> rate_trend_warnings(const RateTrend& trend);

// log2 lr = c0 + c1 f + c2 e by least squares with 3 (c1^2 + c2^2) added to the sum, so that few
// cells cannot throw the next start far. `smallest` is the size from which f counts.
struct DampedTrend {
  double c0 = 0, c1 = 0, c2 = 0, smallest_size = 1;
  double log2_rate(double size, double epochs) const;
};
DampedTrend fit_damped_trend(std::span<const RatePoint> points, double damping = 3);

}  // namespace nf::analysis

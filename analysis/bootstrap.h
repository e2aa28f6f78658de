// Case bootstrap: which cases a sample holds is a pure function of (seed, sample), so any number of
// threads gives the same bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "analysis/power_law.h"
#include "analysis/statistics.h"

namespace nf::analysis {

struct BootstrapOptions {
  int samples = 1000;
  uint64_t seed = 1;
  int threads = 0;  // 0: all cores
};

// How often each case was drawn in sample `index`; `cases` draws in all.
std::vector<double> draw_counts(uint64_t seed, int index, size_t cases);
// A number in [0, n) that belongs to (seed, sample, which), unrelated to the counts.
size_t draw_index(uint64_t seed, int index, uint64_t which, size_t n);

// Calls work(0) ... work(n - 1), spread over threads (0: all cores). The first exception is thrown
// again here.
void parallel_for(int n, int threads, const std::function<void(int)>& work);

// How far the samples of a bootstrap can be trusted.
struct Convergence {
  int samples = 0, converged = 0;
  bool usable() const { return 2 * converged >= samples && converged > 1; }
  bool doubtful() const { return 10 * converged < 9 * samples; }
};

// Refits of a curve; samples that did not converge are left out.
struct CurveBootstrap {
  std::vector<CurveFit> fits;  // converged samples, in order of their number
  std::vector<int> index;      // their numbers
  Convergence convergence;
  uint64_t seed = 0;
  std::vector<double> residuals;  // ln y - ln f of the fit itself

  // 95 % intervals of CurveFit::named(), in its order; empty when not usable().
  std::vector<Interval> parameters(double share = 0.95) const;
  // The interval that holds `share` of new points at x: each sample's prediction with a residual
  // drawn from the fit's.
  Interval prediction(double x, double share) const;
  // The interval of the curve itself.
  Interval curve(double x, double share) const;
};
CurveBootstrap bootstrap_curve(const CurveData& data, const CurveFit& fit,
                               const BootstrapOptions& options);

}  // namespace nf::analysis

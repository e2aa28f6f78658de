// A trainer whose losses are known: the best rate falls with size and epochs, rates above a limit
// diverge. It counts how often each trial was trained.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "launch/controller.h"

namespace nf::test {

struct FakeTrainer {
  double best_log2(const launch::TuningCell& c) const {
    return 0.6 - 0.15 * std::log2(c.size) - 0.4 * std::log2(c.epochs / 0.25);
  }
  double loss(const launch::TuningCell& c, const analysis::RateGrid& grid, int k) const {
    const double rate = std::log2(grid.rate(k));
    if (rate > best_log2(c) + 1.1) return std::numeric_limits<double>::infinity();
    const double off = rate - best_log2(c);
    return (1.6 + 2 * std::pow(c.size, -0.3) + 1 * std::pow(c.epochs, -0.3)) *
           std::exp(0.015 * off * off);
  }
};

// Four models by five budgets, in order of train FLOPs.
inline std::vector<launch::TuningCell> fake_cells() {
  std::vector<launch::TuningCell> cells;
  for (const double size : {1.0, 2.1, 4.3, 9.0})
    for (const double epochs : {0.25, 0.5, 1.0, 2.0, 4.0}) cells.push_back({size, epochs});
  std::stable_sort(cells.begin(), cells.end(), [](const auto& a, const auto& b) {
    return a.size * a.epochs < b.size * b.epochs;
  });
  return cells;
}

}  // namespace nf::test

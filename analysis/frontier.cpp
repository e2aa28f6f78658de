// See frontier.h.
#include "analysis/frontier.h"

#include <algorithm>
#include <limits>
#include <tuple>

namespace nf::analysis {

Frontier find_frontier(const std::vector<Run>& used, bool flops) {
  Frontier frontier;
  frontier.device_hours =
      !flops && !used.empty() && std::all_of(used.begin(), used.end(), [&](const Run& run) {
        return !run.device.empty() && run.device == used[0].device && run.device_hours > 0;
      });
  std::vector<const Run*> order;
  order.reserve(used.size());
  for (const Run& run : used) order.push_back(&run);
  std::sort(order.begin(), order.end(), [&](const Run* a, const Run* b) {
    return std::tuple(frontier.compute(*a), a->heldout_loss, a->run) <
           std::tuple(frontier.compute(*b), b->heldout_loss, b->run);
  });
  double best = std::numeric_limits<double>::infinity();
  for (const Run* run : order) {
    if (!(run->heldout_loss < best)) continue;
    best = run->heldout_loss;
    frontier.runs.push_back(*run);
  }
  return frontier;
}

}  // namespace nf::analysis

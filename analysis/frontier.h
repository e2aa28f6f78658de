// The compute frontier of a sweep: runs that no run of equal or smaller compute beats.
#pragma once

#include <string>
#include <vector>

#include "analysis/run_table.h"

namespace nf::analysis {

struct Frontier {
  bool device_hours = false;  // the x axis; else train FLOPs
  std::vector<Run> runs;      // by compute
  double compute(const Run& run) const { return device_hours ? run.device_hours : run.train_flops; }
  const char* axis() const { return device_hours ? "device_hours" : "train_flops"; }
};

// Device-hours where one named device made all runs and every run has them, else (or when `flops`
// are asked for) FLOPs. Of equal compute and loss the first by name.
Frontier find_frontier(const std::vector<Run>& used, bool flops = false);

}  // namespace nf::analysis

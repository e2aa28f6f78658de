// nf-train --dry-run: what a run would do and cost, without a step.
#pragma once

#include <string>

#include "core/jsonl.h"
#include "trainer/memory.h"
#include "trainer/run_config.h"

namespace nf::train {

struct RunEstimate {
  uint64_t samples = 0, positions = 0, steps = 0;
  int64_t parameters = 0;
  double train_flops_per_image = 0, train_flops = 0;
  MemoryEstimate memory;        // of rank 0
  MemoryEstimate other_memory;  // with train.recompute the other way
  bool recompute = false;
};

// Opens the data set for its size; ranks: how many share the batch. Throws as a run would.
RunEstimate estimate_run(const RunConfig& config, int ranks);
std::string format_estimate(const RunEstimate& estimate, const RunConfig& config, int ranks);
Json to_json(const RunEstimate& estimate);

}  // namespace nf::train

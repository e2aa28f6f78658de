// nf-train --dry-run: what a run would do and cost, without a step.
#pragma once

#include <string>

#include "core/jsonl.h"
#include "trainer/run_config.h"

namespace nf::train {

struct RunEstimate {
  uint64_t samples = 0, positions = 0, steps = 0;
  int64_t parameters = 0;
  double train_flops_per_image = 0, train_flops = 0;
  double weights_bytes =
      0;  // parameters, gradient, momentum, average, reduction buffers, of one rank
  double activation_bytes = 0;  // one micro-batch, of one rank
  double batch_bytes = 0;       // loader's images in flight
};

// Opens the data set for its size; ranks: how many share the batch. Throws as a run would.
RunEstimate estimate_run(const RunConfig& config, int ranks);
std::string format_estimate(const RunEstimate& estimate, const RunConfig& config, int ranks);
Json to_json(const RunEstimate& estimate);

}  // namespace nf::train

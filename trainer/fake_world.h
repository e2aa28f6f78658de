// nf-train --fake-world N: a job of N ranks rehearsed by one process that plays rank 0. All of a
// run is walked (data set, resume, steps, evaluation, checkpoint, result) in a temporary folder;
// memory and messages are this rank's real ones; the time on the wanted machine is computed from
// the link and device that the caller assumes (docs/scale.md).
#pragma once

#include "core/jsonl.h"
#include "trainer/run_config.h"

namespace nf::train {

// The machine of the job. Defaults: one rank a GPU (H100 class, dense bfloat16), 400 Gbit/s each.
struct AssumedMachine {
  double tflops = 989;    // peak of a rank's device
  double mfu = 0.4;       // share of it that a step reaches
  double gbps = 400;      // Gbit/s out of a rank
  double latency_us = 5;  // of one message, and of each of log2(N) stages of a collective
  double message_us = 1;  // of a rank's time for every further message of the same exchange
};

struct Rehearsal {
  int ranks = 1;
  uint64_t plan_steps_checked = 0;    // steps whose positions were compared over all ranks
  double own_step_seconds = 0;        // measured here, this rank's part of a step
  double peak_memory_bytes = 0;       // of this process
  double estimated_memory_bytes = 0;  // what --dry-run says
  double messages = 0, bytes = 0, collectives = 0;  // of this rank, a step
  double compute_seconds = 0;                       // on the assumed machine, a step
  double exchange_seconds = 0;                      // all of it
  double exposed_seconds = 0;                       // not behind the backward pass
  double efficiency = 0;                            // compute / (compute + exposed)
  double run_hours = 0;                             // of the whole run
};

// Trains `limit.steps` steps (3 where the config has no limit). Throws as a run would;
// Error(kOther) when ranks' plans do not cover a step exactly.
Rehearsal rehearse(const RunConfig& config, int ranks, const AssumedMachine& machine);

// The times of a step for a rank that sends so much; for docs and tests.
double exchange_seconds(const Rehearsal& traffic, const AssumedMachine& machine);

std::string format_rehearsal(const Rehearsal& r);
Json to_json(const Rehearsal& r);

}  // namespace nf::train

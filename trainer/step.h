// One update. train_step is the whole of it; everything it calls is a pure function of (weights,
// positions, config), so its bits cannot depend on ranks, threads of the loader or restarts.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data_pipeline/loader.h"
#include "trainer/build.h"
#include "trainer/watch/activity.h"

namespace nf {
class Timeline;
}

namespace nf::train {

struct StepResult {
  uint64_t step = 0;            // updates done after it
  uint64_t begin = 0, end = 0;  // positions
  double loss = 0;              // mean over the batch's valid samples, before the update
  double top1 = 0;              // fraction right
  double learning_rate = 0;
  double grad_norm = 0;
  int64_t agc_units = 0, agc_clipped = 0;
  uint64_t digest = 0;                    // of (position, sample) pairs, over all ranks
  int64_t bad = 0;                        // undecodable samples in the batch, over all ranks
  std::vector<data::BadSample> bad_here;  // this rank's
  uint64_t stop = 0;                      // stop requests of all ranks (StopReason bits)
  int error_code = 0;                     // a rank's failure beside the step (a save): ExitCode
  double slowest_seconds = 0;             // the slowest rank's step before this one
  std::string not_finite;                 // what was not finite, and so not used; empty: all was
};

struct StepHooks {
  std::function<void(uint64_t step, const data::MicroBatch&)>
      taken;                               // at the moment a step takes samples (trace)
  std::function<uint64_t()> stop_request;  // this rank's StopReason
  std::function<int()> error_code;         // this rank's failure beside the step; 0: none
  double last_step_seconds = 0;            // this rank's
  Timeline* timeline = nullptr;            // spans of this step; null: none
  Activity* activity = nullptr;            // told what the step waits for
};

// When loss or gradient is not finite, no weight, momentum or average changes, on every rank alike:
// throws AgreedError(kNotFinite), or with train.on_non_finite = "skip" goes on to the next batch.
StepResult train_step(Trainer& trainer, const StepHooks& hooks);

}  // namespace nf::train

// A sweep on Slurm, in rounds: an array job of the trials that can be run now, and behind it a job
// that judges them and submits the next round, until the controller has nothing more to ask. Each
// element survives preemption as a single run does (batch_script.h). The table of results and the
// queue are all that is remembered, so calling it again at any time is safe: it submits what is
// missing.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/error.h"
#include "launch/batch_script.h"
#include "launch/trial_verdict.h"

namespace nf::launch {

struct SubmitOptions {
  SweepPlace place;
  BatchResources resources;
  int64_t throttle = 0;  // elements of a round that run at the same time; 0: as many as fit
  // The round that the calling job closes; 0: called by a user, who gives failed trials another
  // chance.
  int64_t closes = 0;
  std::string own_job;                   // the calling job
  std::vector<std::string> follow_up;    // the command of the job behind a round, but for
                                         // --close ROUND
  bool print = false;                    // the script, and submit nothing
  std::function<void(std::string)> say;  // a line of progress
};

// kDone: submitted, under way or complete; kOther: complete, and trials failed.
ExitCode submit_sweep(const SweepConfig& config, const SweepPlan& plan,
                      const SubmitOptions& options);

}  // namespace nf::launch

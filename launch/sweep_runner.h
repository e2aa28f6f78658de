// Runs a sweep on this host: trials side by side, each through mpirun, until the controller has
// nothing more to ask. Killed at any moment and started again it repeats no finished run; several
// at once share the work.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "core/error.h"
#include "launch/trial_verdict.h"

namespace nf::launch {

struct RunnerOptions {
  SweepPlace place;
  std::function<bool()> stopping;        // asked often; true: save everything and return
  std::function<void(std::string)> say;  // one line of progress
};

// Takes the folder for this config: sweep.toml and train.toml are written, or compared. Throws
// Error(kUsage) naming what differs where it affects results.
void claim_sweep(SweepConfig& config, const std::filesystem::path& output);

// kDone; kPreempted when it was asked to stop; kOther when trials failed.
ExitCode run_sweep(const SweepConfig& config, const SweepPlan& plan, const RunnerOptions& options);

}  // namespace nf::launch

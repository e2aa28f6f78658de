// What becomes of a trial's run directory: the command that trains it, and the verdict once that
// has ended. Shared by sweeps on this host and on Slurm.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "launch/trial_store.h"

namespace nf::launch {

// Where a sweep lies and with what it trains.
struct SweepPlace {
  std::filesystem::path output;    // the sweep's folder
  std::filesystem::path programs;  // where nf-train and nf-audit lie
};

// nf-train's words for a trial; what starts ranks is put before them.
std::vector<std::string> train_words(const SweepConfig& config, const SweepPlan& plan,
                                     const SweepPlace& place, const Trial& trial);

// The verdicts; each returns a line for the user.
// done or diverged, by the held-out loss of a finished run, with what nf-audit says of it.
std::string judge_finished(const TrialStore& store, const SweepConfig& config,
                           const SweepPlace& place, const std::string& trial, const Json& result);
// Ended by nf-train with exit code 6.
std::string judge_diverged(const TrialStore& store, const std::string& trial, double device_hours);
// Given up. The line ends with the last error in the trial's log.
std::string judge_failed(const TrialStore& store, const std::string& trial, int code,
                         const std::string& why, const std::filesystem::path& log);

}  // namespace nf::launch

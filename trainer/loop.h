// A run from wherever it stands to its end: resume, step, log, evaluate, save, stop. All ranks walk
// the same path; rank 0 alone touches files.
#pragma once

#include <memory>
#include <string>

#include "core/error.h"
#include "trainer/build.h"
#include "trainer/metrics.h"
#include "trainer/progress.h"
#include "trainer/run_dir.h"
#include "trainer/stop.h"
#include "trainer/watch/activity.h"
#include "trainer/watch/watchdog.h"

namespace nf::train {

struct LoopOptions {
  std::filesystem::path output;  // RUN_DIR
  std::string resume = "auto";   // auto, never, or a checkpoint folder
  std::string command;           // for the start line
  bool quiet = false;            // no progress on stderr
  Activity* activity = nullptr;  // told what this rank does
  Watchdog* watchdog = nullptr;  // told how long steps take
};

// Returns kDone or kPreempted; throws for everything else (AgreedError where all ranks do).
ExitCode run_training(Trainer& trainer, const LoopOptions& options, StopWatch& watch);

}  // namespace nf::train

// A run on this host that outlives its faults: started again after a dead or hung rank, a kill or
// a full disk, with a pause that grows, as long as it makes progress. No process of it is left
// behind.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "launch/programs.h"

namespace nf::launch {

struct LocalOptions {
  TrainCommand train;
  int64_t ranks = 1;         // 1: nf-train without mpirun
  int64_t max_restarts = 5;  // in a row, without a newer checkpoint
  double first_pause_seconds = 1;
  bool restart_preempted = true;  // 75 that nobody asked for; false with limit.wall_minutes
  // Asked often: how many times the user wants it to end. Once: save and leave; more: leave.
  std::function<int()> stops;
  std::function<void(const std::string&)> say;
};

// nf-train's exit code, of the last life; kRank for one that was killed.
int run_local(const LocalOptions& options);

}  // namespace nf::launch

// Why a run should stop early. Signal handlers only set a flag; the ranks agree on it at a step
// boundary (loop.cpp), so all of them save and leave at the same step.
#pragma once

#include <chrono>

namespace nf::train {

enum class StopReason : int { kNone = 0, kWallClock = 1, kSignal = 2 };

// Handles SIGTERM, SIGUSR1 and SIGUSR2 for the life of the object (one per process).
class StopWatch {
 public:
  // wall_minutes 0: no limit; counted from construction. job_end: when the allocation ends, seconds
  // since 1970 (SLURM_JOB_END_TIME); 0: unknown.
  explicit StopWatch(double wall_minutes, double job_end = 0);
  ~StopWatch();
  StopWatch(const StopWatch&) = delete;
  StopWatch& operator=(const StopWatch&) = delete;

  StopReason reason() const;
  // What a step and a save take: the job stops when less than this and half a minute is left.
  void reserve(double seconds) { reserve_ = seconds; }

 private:
  std::chrono::steady_clock::time_point start_;
  double wall_minutes_, job_end_;
  double reserve_ = 0;
};

}  // namespace nf::train

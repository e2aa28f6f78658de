// Why a run should stop early. Signal handlers only set a flag; the ranks agree on it at a step
// boundary (loop.cpp), so all of them save and leave at the same step.
#pragma once

#include <chrono>

namespace nf::train {

enum class StopReason : int { kNone = 0, kWallClock = 1, kSignal = 2 };

// Handles SIGTERM and SIGUSR1 for the life of the object (one per process).
class StopWatch {
 public:
  // wall_minutes 0: no limit; counted from construction.
  explicit StopWatch(double wall_minutes);
  ~StopWatch();
  StopWatch(const StopWatch&) = delete;
  StopWatch& operator=(const StopWatch&) = delete;

  StopReason reason() const;

 private:
  std::chrono::steady_clock::time_point start_;
  double wall_minutes_;
};

}  // namespace nf::train

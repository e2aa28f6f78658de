// A small process beside each rank that ends the rank when it was stopped (SIGSTOP, a frozen
// cgroup) for too long. Watchdogs see a frozen rank from the others; this sees it also when all
// ranks are frozen and nobody is left to look.
#pragma once

#include <atomic>

namespace nf::train {

class Sentinel {
 public:
  // Forks. Call on the main thread, before MPI and before any other thread exists. patience:
  // seconds in the stopped state; 0: for ever.
  explicit Sentinel(double patience);
  ~Sentinel();  // ends it
  Sentinel(const Sentinel&) = delete;
  Sentinel& operator=(const Sentinel&) = delete;

  void set_patience(double seconds) { *patience_ = seconds; }

 private:
  std::atomic<double>* patience_;  // in memory shared with the sentinel
  int child_ = -1;
};

}  // namespace nf::train

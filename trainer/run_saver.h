// When a run's state is saved, where, and which checkpoints stay. Saves happen from a copy on a
// thread of their own, one at a time, while training goes on; a save that fails is told at the next
// step, and the third failure in a row ends the run. Used by rank 0.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "trainer/build.h"
#include "trainer/metrics.h"
#include "trainer/run_dir.h"

namespace nf::train {

class RunSaver {
 public:
  static constexpr int kMaxFailures = 3;  // in a row

  // directory and metrics must outlive it. committed: the step that was resumed from, if any.
  RunSaver(const RunDirectory& directory, Metrics& metrics, const CheckpointConfig& config,
           std::optional<uint64_t> committed);
  ~RunSaver();  // waits for the save under way
  RunSaver(const RunSaver&) = delete;
  RunSaver& operator=(const RunSaver&) = delete;

  bool is_due(uint64_t step) const;  // by checkpoint.every_steps and every_minutes
  // Copies the state and saves it, in the background if the config says so. A save that is still
  // under way is waited for. Nothing when this step's state is saved or being saved.
  void save(Trainer& trainer) { save(trainer, SnapshotMemory::kCopy); }
  // Returns once the state of the trainer's present step is committed. Throws what went wrong.
  void commit(Trainer& trainer);
  // What the last save failed with, once; empty: nothing new.
  std::string news();
  // Not 0 when the run must end: too many saves failed, or another job took the run over.
  int error_code();
  void rethrow_failure();  // what error_code() told
  // An evaluation: the best one's state is saved, stays, and checkpoints/best names it.
  void evaluated(Trainer& trainer, const EvalResult& result);
  // What training stood still for: copying, and waiting for an earlier save.
  double stall_seconds() const { return stall_; }
  double longest_save_seconds() const { return longest_; }

 private:
  using Clock = std::chrono::steady_clock;
  void save(Trainer& trainer, SnapshotMemory memory);
  void run(std::function<void()> work);
  void join();
  std::set<uint64_t> pinned() const;
  bool better(const EvalResult& result) const;

  const RunDirectory& directory_;
  Metrics& metrics_;
  const CheckpointConfig config_;
  std::optional<uint64_t> saved_;  // the newest step saved or being saved
  Clock::time_point last_save_ = Clock::now(), last_look_ = last_save_;
  std::optional<uint64_t> best_step_;
  double best_figure_ = 0;
  std::jthread thread_;
  std::exception_ptr outcome_;  // of the thread; read after join()
  bool running_ = false;
  std::atomic<bool> done_{false};
  std::exception_ptr failure_;
  std::string news_;
  int failures_ = 0;
  double stall_ = 0;
  std::atomic<double> longest_{0};
};

}  // namespace nf::train

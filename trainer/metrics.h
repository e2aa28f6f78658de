// metrics.jsonl, ledger.jsonl, quarantine.jsonl and TensorBoard events of a run (contract, "Run").
// Written by rank 0. On a resume the lines of steps that will be done again are cut off first, so
// no step appears twice.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/jsonl.h"
#include "trainer/evaluate.h"
#include "trainer/run_dir.h"
#include "trainer/step.h"
#include "trainer/tensorboard.h"

namespace nf::train {

class Metrics {
 public:
  // first_step: updates already done; first_position: samples already used.
  Metrics(const RunDirectory& directory, uint64_t first_step, uint64_t first_position, int ranks,
          bool tensorboard);

  void start(const Json& facts);  // kind "start", with time and accounting
  struct Speed {
    double images_per_second = 0, data_wait_fraction = 0, mfu = 0;
  };
  void train(const StepResult& r, double epoch, const Speed& speed);
  void ledger(const StepResult& r);
  void quarantine(const Json& bad_sample);
  void eval(uint64_t step, const std::string& split, const std::string& weights,
            const EvalResult& r);
  void end(const std::string& reason, uint64_t step);
  // Before a checkpoint: what it claims must be on disk. The one call that another thread may make.
  void sync();

  struct Best {
    uint64_t step;
    double figure;
  };
  // Of the evaluations so far, by "loss" or "top1"; of the averaged weights where there are any.
  std::optional<Best> best_eval(const std::string& by) const;
  bool has_eval(uint64_t step, const std::string& weights) const;
  double device_seconds() const;  // of all sessions until now
  int64_t restarts() const { return accounting_.sessions; }
  uint64_t bad_samples() const { return bad_samples_; }

 private:
  Accounting accounting_;  // of the sessions before this one
  std::chrono::steady_clock::time_point start_;
  int ranks_;
  struct Eval {
    uint64_t step;
    std::string weights;
    double loss, top1;
  };
  std::vector<Eval> evals_;
  uint64_t bad_samples_ = 0;
  JsonlWriter metrics_, ledger_;
  std::filesystem::path quarantine_path_;
  std::mutex quarantine_mutex_;
  std::unique_ptr<JsonlWriter> quarantine_;
  std::unique_ptr<EventFile> events_;
};

}  // namespace nf::train

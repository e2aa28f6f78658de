// DIR/runs: what a sweep's folder knows of its trials. NAME/ is the run directory of nf-train,
// NAME.json the sweep's verdict (written last, so a trial without it is not finished), NAME.lock
// is held while the trial's processes live, NAME.log is what they said.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "analysis/run_table.h"
#include "core/jsonl.h"
#include "launch/sweep_plan.h"

namespace nf::launch {

struct TrialState {
  analysis::RunStatus status = analysis::RunStatus::kQueued;
  bool known = false;    // something of it lies on the disk
  Json result, verdict;  // result.json and NAME.json; null: not there
  bool final() const {
    return verdict.is_object();  // done, diverged or failed
  }
};

// An exclusive lock of one trial, released when the object and every process that inherited it are
// gone.
class TrialLock {
 public:
  ~TrialLock();
  TrialLock(TrialLock&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  TrialLock(const TrialLock&) = delete;
  TrialLock& operator=(const TrialLock&) = delete;
  int fd() const { return fd_; }

 private:
  friend class TrialStore;
  explicit TrialLock(int fd) : fd_(fd) {}
  int fd_;
};

class TrialStore {
 public:
  explicit TrialStore(std::filesystem::path sweep_folder) : folder_(sweep_folder / "runs") {}
  void create() const;
  std::filesystem::path run_dir(const std::string& name) const { return folder_ / name; }
  std::filesystem::path file(const std::string& name, const char* kind) const {
    return folder_ / (name + kind);
  }
  std::filesystem::path results() const { return folder_.parent_path() / "results.csv"; }
  TrialState read(const std::string& name) const;
  // The finished training of a run directory that has no verdict yet; null when there is none.
  Json finished_result(const std::string& name) const;
  std::optional<TrialLock> try_lock(const std::string& name) const;
  void write_verdict(const std::string& name, const Json& verdict) const;
  // Failed trials get another chance.
  void forget_failures(const std::vector<std::string>& names) const;

 private:
  std::filesystem::path folder_;
};

// Held-out loss of a finished run; nothing when it was not evaluated. diverged: not finite or above
// ln(classes) + 1.
std::optional<double> heldout_loss(const Json& result);
bool has_diverged(double loss, int64_t classes);

// One trial of the grid.
struct Trial {
  size_t cell;
  int k;
  int64_t seed;
  std::string name;
};
// Every (cell, notch, seed) that can be.
std::vector<Trial> all_trials(const SweepPlan& plan, const SweepConfig& config);
// What the controller decides from: seeds that are all finished, averaged in ln loss.
std::vector<CellTrials> read_trials(const TrialStore& store, const SweepPlan& plan,
                                    const SweepConfig& config);

// Writes the sweep's results.csv (the contract's columns and more; rows in order of cell, rate and
// seed), whole or not at all, and tells where it is.
std::filesystem::path write_results(const TrialStore& store, const SweepPlan& plan,
                                    const SweepConfig& config);

}  // namespace nf::launch

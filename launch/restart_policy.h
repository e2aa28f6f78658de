// When a training process that ended is started again: one rule for nf-launch local, for batch
// scripts (which get it as text) and for sweeps. Progress is a newer committed checkpoint; a run
// that makes none is given up after a while, one that does may be interrupted for ever.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace nf::launch {

// Exit codes that another try cannot mend: config, data, weights, not finite, no program.
const std::vector<int>& final_codes();
bool is_final(int code);

// The step of the newest committed checkpoint of a run directory; 0: none.
int64_t newest_step(const std::filesystem::path& run_dir);

// Counts restarts in a row without progress.
class RestartBound {
 public:
  // `step`: what an earlier life left.
  explicit RestartBound(int64_t most_idle, int64_t step = 0)
      : most_idle_(most_idle), reached_(step) {}
  // After a life that ended at checkpoint `step`: may there be another?
  bool allows(int64_t step);
  int64_t idle() const { return idle_; }  // lives in a row without a newer checkpoint

 private:
  int64_t most_idle_, reached_, idle_ = 0;
};

}  // namespace nf::launch

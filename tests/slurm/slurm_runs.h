// Training runs under the Slurm of the tests: a tiny net on drawn images, submitted by nf-launch
// sbatch, watched, and compared at the end with a run that was never disturbed.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/jsonl.h"
#include "tests/slurm/slurm_lab.h"

namespace nf::test {

struct SlurmRun {
  std::string name;  // of the run directory
  std::string job;   // as Slurm accounts for it: JOBID or JOBID_TASK
  std::filesystem::path directory;
  std::filesystem::path log;  // what the job's script and its ranks said
  int64_t seed = 10;
};

class SlurmRuns {
 public:
  // epochs of 250 images in batches of 12; `overrides`: further keys of the config, as TOML.
  SlurmRuns(SlurmLab& lab, double epochs, const std::map<std::string, std::string>& overrides = {});

  // `how`: options of nf-launch sbatch. With --array in it, one run for each of `tasks`, with seed
  // 10 + task.
  std::vector<SlurmRun> submit(const std::string& name, const std::vector<std::string>& how,
                               const std::vector<int>& tasks = {});
  // Lines of metrics.jsonl of a kind.
  static std::vector<Json> metrics(const SlurmRun& run, const std::string& kind);
  static size_t lives(const SlurmRun& run);  // that its log tells of
  // The step that the run's metrics have reached.
  static int64_t step(const SlurmRun& run);
  int64_t last_step(int64_t seed = 10);  // of a run

  // Throws with its log when the job ended in another way than COMPLETED, or before its result.json
  // was there.
  bool is_over(const SlurmRun& run) const;
  // Waits until each is over or has `enough`.
  void wait(const std::vector<SlurmRun>& runs, const std::function<bool(const SlurmRun&)>& enough);
  void wait(const std::vector<SlurmRun>& runs);
  // What is wrong with a run that has ended, compared with an undisturbed one; "" when nothing is.
  std::string differences(const SlurmRun& run);

  const std::filesystem::path& folder() const { return folder_.path(); }
  std::filesystem::path config() const { return folder_ / "run.toml"; }

 private:
  std::filesystem::path undisturbed(int64_t seed);

  SlurmLab& lab_;
  TempDir folder_;
  std::map<int64_t, std::filesystem::path> references_;
};

}  // namespace nf::test

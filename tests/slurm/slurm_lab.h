// A real Slurm of the tests' own: controller and nodes as root on loopback, with their own folder
// and ports, without munge, systemd, cgroups or a database. Partition `low` is preempted (REQUEUE,
// with a grace time) by `high`. What a user would call (sbatch, squeue, nf-launch) finds it through
// SLURM_CONF, which the constructor sets.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/process.h"

namespace nf::test {

// Why there can be no Slurm here, or "".
std::string slurm_is_missing();

struct LabOptions {
  int nodes = 2;
  int cpus = 16;          // of a node, whatever the machine has
  int grace_seconds = 6;  // of `low`
};

class SlurmLab {
 public:
  explicit SlurmLab(const LabOptions& options);
  ~SlurmLab();  // ends the daemons and every job
  SlurmLab(const SlurmLab&) = delete;
  SlurmLab& operator=(const SlurmLab&) = delete;

  const std::filesystem::path& folder() const { return folder_.path(); }

  // A job of `high` that takes so many cores of each of so many nodes (0: all of both), and its
  // end. Returns once it runs, so what it had to push aside is gone.
  std::string take(int nodes = 0, int cpus = 0);
  void release(const std::string& job);

  // A node dies with everything on it; a node comes (back).
  void kill_node(int node);
  void start_node(int node);

  // JOBID or JOBID_TASK -> how its lives ended (Slurm's accounting file): PENDING for a requeue,
  // then COMPLETED, FAILED, TIMEOUT, ...
  std::map<std::string, std::vector<std::string>> ended() const;
  // The states that squeue shows of a job or its elements.
  std::vector<std::string> states(const std::string& job) const;

 private:
  void write_config() const;
  std::filesystem::path log(int node) const;
  void wait_for_nodes() const;

  LabOptions options_;
  TempDir folder_;
  std::vector<int> ports_;
  std::unique_ptr<Process> controller_;
  std::vector<std::unique_ptr<Process>> nodes_;
};

// Polls until `ready`; throws with what it waited for after `seconds`.
void wait_until(const std::string& what, const std::function<bool()>& ready, double seconds = 240);

// Processes below `root` in the tree, itself not.
std::vector<pid_t> descendants(pid_t root);

}  // namespace nf::test

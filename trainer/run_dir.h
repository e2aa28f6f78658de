// RUN_DIR: one run's files (contract, "Run"), held by one job at a time. Used by rank 0.
//
// Held twice over: by flock, which ends with the process, and by a token in the lock file, drawn by
// each job that takes it. Where locks do not reach other hosts (some network file systems) the
// newest job wins, and the one before it finds its token gone and ends without writing more.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/jsonl.h"
#include "trainer/run_config.h"

namespace nf::train {

class RunDirectory {
 public:
  // Creates the folder and takes its lock, waiting up to `wait_seconds` for a job that is just
  // ending. Throws Error(kUsage) naming host and process when another job holds it.
  RunDirectory(const std::filesystem::path& path, double wait_seconds = 10);
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path file(const std::string& name) const { return path_ / name; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }

  // Writes config.toml, or compares with the one that is there: Error(kUsage) naming the keys that
  // differ where they affect the result.
  void claim(const RunConfig& config);
  bool has_run() const;  // a run has been started here before
  // Another job has not taken the lock file over.
  bool is_owner() const;
  void check_owner() const;  // throws Error(kUsage) that names the other job

 private:
  std::filesystem::path path_;
  int lock_ = -1;
  std::string owner_;  // what the lock file says while it is ours
};

// Device-seconds of the sessions that metrics.jsonl remembers, and how many restarts there were.
struct Accounting {
  double device_seconds = 0;
  int64_t sessions = 0;  // started so far
};
Accounting read_accounting(const std::filesystem::path& metrics);

}  // namespace nf::train

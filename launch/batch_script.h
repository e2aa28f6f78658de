// Batch scripts for Slurm that survive preemption, time limits and lost nodes, made from
// templates/job.sbatch (read it: it says what it does). One script serves a single run and an
// array, in which each element is a run of its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace nf::launch {

// What is asked of the cluster; 0 and "" leave a thing to its defaults.
struct BatchResources {
  int64_t nodes = 1;
  int64_t ranks = 0;  // 0: one a node, or one a GPU with gpus_per_node
  int64_t cpus_per_task = 0, gpus_per_node = 0;
  std::string partition, account, qos, time;
  std::vector<std::string> more;    // further options of sbatch, as "--constraint=a100"
  int64_t signal_seconds = 120;     // this long before its end a job is asked to save
  int64_t max_restarts = 5;         // in a row, without a newer checkpoint
  std::string launcher = "mpirun";  // or srun

  int64_t all_ranks() const {
    return ranks > 0 ? ranks : nodes * (gpus_per_node > 0 ? gpus_per_node : 1);
  }
};

struct BatchRun {
  std::string run_dir;
  std::vector<std::string> words;  // the program each rank runs, and its arguments
  std::string done_file;           // there when the run has succeeded
  // All may be empty. lock_file is held while the run lives; with verdict_file there, nothing is
  // left to do; exit_file gets "code seconds" when the job ends for good; log_file gets what is
  // said.
  std::string lock_file, verdict_file, exit_file, log_file;
};

enum class BatchKind {
  kSingle,    // runs[0]
  kTemplate,  // an array; each element is runs[0] with its number where "{task}" stands
  kList       // an array; element i is runs[i]
};

struct BatchJob {
  BatchKind kind = BatchKind::kSingle;
  std::string array;    // as sbatch's --array; "": a single job
  std::string title;    // a line for its reader
  std::string program;  // that writes it
  std::string name;
  std::string log;     // sbatch's patterns %j, %A and %a stand for themselves
  std::string folder;  // where it runs
  std::vector<BatchRun> runs;
  bool ranked = true;  // false: the program runs once, without mpirun or srun
};

// Throws Error(kUsage) naming a value that no batch script can hold.
std::string batch_script(const BatchJob& job, const BatchResources& resources);

}  // namespace nf::launch

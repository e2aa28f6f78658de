// Slurm's own commands, as a user would call them. They read SLURM_CONF and the rest of their
// environment themselves.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace nf::launch {

// sbatch of a script; the job's id. Throws Error(kUsage) with what sbatch says, or when there is no
// sbatch.
std::string submit_script(const std::filesystem::path& script,
                          const std::vector<std::string>& more = {});

struct QueuedJob {
  std::string id;                // of the array, for its elements
  std::filesystem::path script;  // it was submitted with
};
// The user's jobs that have not ended. Throws Error(kUsage) when squeue cannot be asked.
std::vector<QueuedJob> queued_jobs();

}  // namespace nf::launch

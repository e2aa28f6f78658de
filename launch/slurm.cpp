// See slurm.h.
#include "launch/slurm.h"

#include <unistd.h>

#include <sstream>

#include "core/error.h"
#include "launch/job_process.h"

namespace nf::launch {
namespace {

std::string answer(const std::string& program, const std::vector<std::string>& command,
                   const std::string& hint) {
  const Ended ended = run_to_end(command);
  if (ended.code == 127)
    throw Error(ExitCode::kUsage, program, "is not on the PATH",
                "this needs a host of a Slurm cluster; --print shows the script without one");
  if (ended.code == 0) return ended.out;
  std::string text = ended.err;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  // The controller may be back later; anything else is what was asked for.
  const bool passing =
      text.find("contact") != std::string::npos || text.find("timed out") != std::string::npos;
  throw Error(passing ? ExitCode::kOther : ExitCode::kUsage, program,
              text.empty() ? "failed without a word" : text, hint);
}

}  // namespace

std::string submit_script(const std::filesystem::path& script,
                          const std::vector<std::string>& more) {
  // From inside a job: what tells that job from others is not the new one's.
  std::vector<std::string> words = {"env",
                                    "-u",
                                    "SLURM_RESTART_COUNT",
                                    "-u",
                                    "SLURM_ARRAY_JOB_ID",
                                    "-u",
                                    "SLURM_ARRAY_TASK_ID",
                                    "sbatch",
                                    "--parsable"};
  words.insert(words.end(), more.begin(), more.end());
  words.push_back(script.string());
  const std::string id = answer("sbatch", words, "sinfo shows the partitions and what they allow");
  return id.substr(0, id.find_first_of(";\n"));  // JOBID[;CLUSTER]
}

std::vector<QueuedJob> queued_jobs() {
  const std::string table = answer(
      "squeue", {"squeue", "--noheader", "--user", std::to_string(::getuid()), "--format", "%F %o"},
      "is the cluster's controller up?");
  std::vector<QueuedJob> jobs;
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);)
    if (const size_t at = line.find(' '); at != std::string::npos)
      jobs.push_back({line.substr(0, at), line.substr(at + 1)});
  return jobs;
}

}  // namespace nf::launch

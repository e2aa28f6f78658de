// A training job as a process of ours: mpirun (or nf-train alone) in a process group of its own. It
// ends with its starter: when that is killed with -9, the job is asked to save and stop.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace nf::launch {

class JobProcess {
 public:
  // `log` is appended to; empty: our own stdout and stderr. `kept` is a file descriptor that the
  // process inherits (a lock: it holds while the process lives), or -1. Throws Error when the
  // process cannot be made.
  JobProcess(const std::vector<std::string>& command, const std::filesystem::path& log, int kept);
  JobProcess(JobProcess&& other) noexcept : pid_(other.pid_) { other.pid_ = -1; }
  JobProcess& operator=(JobProcess&&) = delete;
  ~JobProcess();  // asks a process that still runs to stop, and waits for it

  // The exit code (128 + signal for a killed one) once it has ended.
  std::optional<int> poll();
  void stop() const;  // asks it to save and end
  void end() const;   // does not ask: mpirun takes its ranks with it

 private:
  pid_t pid_;
};

// The command as ranks on this host, more than its cores if need be.
std::vector<std::string> through_mpirun(int64_t ranks, const std::vector<std::string>& command);

struct Ended {
  int code = 0;  // 128 + signal for a killed process, 127 when the program is not there
  std::string out, err;
};
// Runs a command to its end. Not for commands that ask something: stdin is empty.
Ended run_to_end(const std::vector<std::string>& command);

}  // namespace nf::launch

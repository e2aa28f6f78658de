// One trial as a process: mpirun with nf-train in a process group of its own. It ends with the
// controller: killed with -9, its trials are asked to save and stop.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace nf::launch {

class TrialProcess {
 public:
  // `log` is appended to; `kept` is a file descriptor that the process inherits (the trial's lock:
  // it holds while the process lives). Throws Error when the process cannot be made.
  TrialProcess(const std::vector<std::string>& command, const std::filesystem::path& log, int kept);
  TrialProcess(TrialProcess&& other) noexcept : pid_(other.pid_) { other.pid_ = -1; }
  TrialProcess& operator=(TrialProcess&&) = delete;
  ~TrialProcess();  // asks a process that still runs to stop, and waits for it

  // The exit code (128 + signal for a killed one) once it has ended.
  std::optional<int> poll();
  void stop() const;  // asks it to save and end

 private:
  pid_t pid_;
};

// Runs a command to its end with stdout in `out`; the exit code.
int run_to_end(const std::vector<std::string>& command, const std::filesystem::path& out);

}  // namespace nf::launch

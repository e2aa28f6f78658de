// Errors meant for users: where it happened, what is wrong, how to mend it, and the exit code of
// the contract. Libraries throw; only a program's main prints (core/program.h). Programmer errors
// are NF_CHECK (core/check.h).
#pragma once

#include <stdexcept>
#include <string>

namespace nf {

// The process exit codes that scripts rely on (docs: README, "Exit codes").
enum class ExitCode : int {
  kDone = 0,
  kOther = 1,
  kUsage = 2,      // bad usage or config
  kData = 3,       // data set missing, damaged or mismatching; too many bad samples
  kWeights = 4,    // checkpoint or weights damaged, incomplete or not fitting the model
  kRank = 5,       // a rank died, hung or disagreed
  kNotFinite = 6,  // loss or gradient not finite; weights untouched since the last good step
  kPreempted = 75  // state saved, run the same command again
};

class Error : public std::runtime_error {
 public:
  // where: file, file:line, or program part; what: one sentence; hint: what to do, may be empty.
  Error(ExitCode code, std::string where, const std::string& what, std::string hint = "")
      : std::runtime_error(what), code_(code), where_(std::move(where)), hint_(std::move(hint)) {}

  ExitCode code() const { return code_; }
  const std::string& where() const { return where_; }
  const std::string& hint() const { return hint_; }

 private:
  ExitCode code_;
  std::string where_;
  std::string hint_;
};

}  // namespace nf

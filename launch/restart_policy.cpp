// See restart_policy.h.
#include "launch/restart_policy.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <string>

#include "core/atomic_file.h"
#include "core/error.h"

namespace nf::launch {

const std::vector<int>& final_codes() {
  static const std::vector<int> codes = {
      static_cast<int>(ExitCode::kUsage),
      static_cast<int>(ExitCode::kData),
      static_cast<int>(ExitCode::kWeights),
      static_cast<int>(ExitCode::kNotFinite),
      126,
      127};  // of shells and execvp: cannot be executed, not found
  return codes;
}

bool is_final(int code) {
  return std::find(final_codes().begin(), final_codes().end(), code) != final_codes().end();
}

int64_t newest_step(const std::filesystem::path& run_dir) {
  const auto file = run_dir / "checkpoints/latest";
  if (!std::filesystem::exists(file)) return 0;
  const std::string name = read_file(file);  // step_000000123
  const size_t digit = name.find_first_of("0123456789");
  return digit == std::string::npos ? 0 : std::strtoll(name.c_str() + digit, nullptr, 10);
}

bool RestartBound::allows(int64_t step) {
  if (step > reached_) {
    reached_ = step;
    idle_ = 0;
  } else {
    ++idle_;
  }
  return idle_ <= most_idle_;
}

}  // namespace nf::launch

// The project's other programs, as launchers need them: where they lie, and what nf-train says of a
// config before a job waits in a queue for a day to fail of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace nf::launch {

// The folder of nf-train: `given`, or that of the running program. Throws Error(kUsage) when
// nf-train is not there.
std::filesystem::path programs_folder(const std::string& given);

struct TrainCommand {
  std::filesystem::path programs;
  std::string config;
  std::vector<std::string> overrides;  // key=value
  std::filesystem::path output;        // RUN_DIR

  std::vector<std::string> words() const;
};

// What matters of a resolved config to those who start it.
struct ResolvedConfig {
  int64_t micro_batches = 0;
  int64_t threads_per_rank = 1;
  double wall_minutes = 0;
};

// nf-train --dry-run. Throws its Error: config or data set at fault, or more ranks than
// batch.micro_batches.
ResolvedConfig check_config(const TrainCommand& command, int64_t ranks);

}  // namespace nf::launch

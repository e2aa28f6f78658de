// A sweep's results.csv: one row a run (contract, "Files"). Reading tells every fault of the file
// at once; selecting says for each row whether fits may use it and, if not, why.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace nf::analysis {

enum class RunStatus { kDone, kDiverged, kFailed, kRunning, kPreempted, kQueued };
std::string status_name(RunStatus status);

struct Run {
  std::string run, model;
  double params = 0, train_flops_per_image = 0, epochs = 0, images_seen = 0, learning_rate = 0;
  double batch = 0, image_size = 0, seed = 0, train_flops = 0;
  double device_hours = 0, cost_usd = 0;                                           // NaN: not given
  double heldout_loss = 0, heldout_top1 = 0;                                       // NaN: not given
  double images_missed = 0, heldout_loss_se = 0, restarts = 0, transfer_top1 = 0;  // optional, NaN
  RunStatus status = RunStatus::kDone;
  std::string device;       // optional, "" unknown
  std::string measured_as;  // loss kind, held-out set, evaluation size, weights: must not mix
  int64_t line = 0;
};

struct RunTable {
  std::string name;  // the file, for messages
  std::vector<Run> runs;
  std::vector<std::string> duplicates;  // names of identical rows that were counted once
  int64_t rows = 0;
  std::string hash;  // of the rows' contents in any order, 16 hex digits
};

// Throws Error(kUsage) with file, line and column of everything that is missing or of a wrong type;
// Error(kData) for an empty table and for different rows with one run name.
RunTable read_run_table(const std::filesystem::path& file);
RunTable read_run_table_text(std::string_view text, const std::string& name);

struct RunSelection {
  std::vector<Run> used;      // done, finite positive loss, all samples seen; by run name
  std::vector<Run> diverged;  // close brackets of the learning rate, nothing else
  std::map<std::string, std::vector<std::string>> excluded;  // reason -> run names
};
inline constexpr double kAllowedMissed = 0.001;

// Throws Error(kUsage) naming rows when runs were not measured alike (loss kind, held-out set,
// evaluation size, averaged or raw weights), Error(kData) with the count per reason when none is
// left.
RunSelection select_runs(const RunTable& table, double allow_missed = kAllowedMissed);

}  // namespace nf::analysis

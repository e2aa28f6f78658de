// What tuning would have cost: the controller asks a finished table instead of training. Rates that
// the table lacks count as diverged. Cells of one group are tuned in order of size x images, the
// first one is bracketed; groups know nothing of each other.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/jsonl.h"
#include "launch/controller.h"

namespace nf::launch {

struct ReplayColumns {
  std::string size, images, rate, loss;
  std::vector<std::string> group;
};

// One line of the table: a cell with the losses it has, by notch.
struct ReplayCell {
  double size, images;
  CellTrials losses;  // the mean of ln loss over rows of one rate; +infinity: diverged
};
struct ReplayGroup {
  std::vector<std::string> values;  // of the group's columns
  std::vector<ReplayCell> cells;    // in order of size x images
};
struct ReplayTable {
  std::vector<ReplayGroup> groups;
  analysis::RateGrid grid;
  int k_low = 0, k_high = 0;  // the rates that the table has
  std::vector<std::string> warnings;
};

// `anchor` nothing: 1.6 where the rates lie on its grid, else the table's middle rate. Throws
// Error(kUsage) with every bad place, Error(kData) when no row can be used.
ReplayTable read_replay_table(const std::filesystem::path& file, const ReplayColumns& columns,
                              std::optional<double> anchor, double factor);

struct ReplayedCell {
  double size, images;
  int trials;
  std::optional<int> chosen;  // nothing: every trial diverged
  int best_in_table;
  double regret;  // loss(chosen) - loss(best); infinite when nothing was chosen
  bool not_bracketed;
};
// Cells in which every rate of the table diverged are left out.
std::vector<ReplayedCell> replay_group(const ReplayGroup& group, const TuningRules& rules);
// The keys of the contract.
Json replay_report(const ReplayTable& table, Policy policy);

}  // namespace nf::launch

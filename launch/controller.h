// Which learning rates a sweep tries next (scaling study, "Sweep"): a pure function of the table of
// results. It keeps nothing, so a controller killed at any moment decides as before, and two
// controllers given equal results choose equal next runs. Rates are notches k of a grid, lr =
// anchor x factor^k; a diverged trial counts as +infinity.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "analysis/cells.h"

namespace nf::launch {

enum class Policy { kFull, kTwoTrial, kBracket };
Policy parse_policy(const std::string& text);  // throws Error(kUsage)

inline constexpr int kMostTrials = 8;  // of one cell, except with kFull

struct TuningRules {
  Policy policy = Policy::kTwoTrial;
  analysis::RateGrid grid;
  int k_low = -6, k_high = 2;
  // A finished table is replayed one cell after the other: a cell needs all cells before it. Else
  // it needs those that are not larger in either direction, and the others run beside it.
  bool in_order = false;
  bool bracket_first = false;  // the first cell, whatever the policy
};

// One (model, epochs, batch, image size, seed set).
struct TuningCell {
  double size;    // train FLOPs an image
  double epochs;  // or images: only ratios count
};

// What is known of one cell: loss by notch; +infinity: diverged; NaN: failed for another reason.
using CellTrials = std::map<int, double>;

struct CellVerdict {
  bool waiting = false;        // for smaller cells
  bool finished = false;       // nothing more to try
  bool failed = false;         // a trial failed: the cell stands still, others go on without it
  std::optional<int> start;    // k0, once the cells it needs are finished
  std::optional<int> best;     // best notch so far; equal losses: the smaller rate
  bool not_bracketed = false;  // finished, and the best lies at an end of the range
  std::vector<int> next;       // notches to run now
};

// The start of cell `index`; `prediction` is what was rounded. For cells whose needs are finished.
struct StartRate {
  int k = 0;
  double prediction = 0;  // in notches, before clamping
};

// The cells that `index` needs. `cells` are in order of train FLOPs.
std::vector<size_t> needed_cells(const std::vector<TuningCell>& cells, const TuningRules& rules,
                                 size_t index);
StartRate start_rate(const std::vector<TuningCell>& cells, const std::vector<CellTrials>& trials,
                     const TuningRules& rules, size_t index);
// One cell's state, given its start.
CellVerdict judge_trials(const CellTrials& trials, const StartRate& start, const TuningRules& rules,
                         bool first);
// All cells, in the order given.
std::vector<CellVerdict> judge_sweep(const std::vector<TuningCell>& cells,
                                     const std::vector<CellTrials>& trials,
                                     const TuningRules& rules);
// Notches from `low` to `high` on the grid. Throws Error(kUsage) when none lies between them.
void set_range(TuningRules& rules, double low, double high);

}  // namespace nf::launch

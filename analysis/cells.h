// Cells of a sweep, their best learning rate and its refinement (scaling study, "Reading a table"):
// a cell is one (model, epochs, batch, image size), its runs differ in learning rate and seed.
// Torch-free and solver-free: the sweep controller decides with the same rules.
#pragma once

#include <string>
#include <vector>

#include "analysis/run_table.h"

namespace nf::analysis {

// Learning rates live on anchor x factor^k, k integer, and are compared as k.
struct RateGrid {
  double anchor = 1.6, factor = 2;
  double position(double rate) const;  // k, not rounded
  double rate(double position) const;
  bool same(double a, double b) const;  // the same notch, to a hundredth
};

// One learning rate of a cell.
struct RateTrial {
  double learning_rate;
  double log_loss;                // mean of ln loss over seeds; +infinity: diverged
  double loss;                    // exp of it; the printed number where there is one run
  double seed_spread;             // standard deviation of ln loss over seeds; 0 for one
  std::vector<std::string> runs;  // finished ones, by name
};

struct Cell {
  std::string model;
  double size = 0;  // train FLOPs an image
  double epochs = 0, images = 0, batch = 0, image_size = 0;
  double train_flops = 0, device_hours = 0;  // of the best run
  std::vector<RateTrial> trials;             // by learning rate
  size_t best = 0;                           // in trials
  bool bracketed = false;                    // both neighbours of the best are known
  bool refined = false;                      // log2_rate is a parabola's minimum
  double log2_rate = 0;
  double loss() const { return trials[best].loss; }
  double learning_rate() const { return trials[best].learning_rate; }
  const std::string& run() const { return trials[best].runs.front(); }
};

// The best of `trials` (equal losses: the smaller rate); trials.size() when all diverged.
size_t best_trial(const std::vector<RateTrial>& trials);

// The refined optimum: parabola through (log2 lr, ln loss) at the best and both neighbours one
// notch away, where all are finite and convex; else the best grid value. Sets best, bracketed,
// refined and log2_rate.
void judge_cell(Cell& cell, const RateGrid& grid);

// Cells in order of (size, model, epochs, batch, image size); those without a finite loss are left
// out.
std::vector<Cell> make_cells(const RunSelection& selection, const RateGrid& grid);

}  // namespace nf::analysis

// See cells.h.
#include "analysis/cells.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

namespace nf::analysis {

double RateGrid::position(double rate) const { return std::log(rate / anchor) / std::log(factor); }
double RateGrid::rate(double position) const { return anchor * std::pow(factor, position); }
bool RateGrid::same(double a, double b) const {
  return std::fabs(position(a) - position(b)) < 0.01;
}

size_t best_trial(const std::vector<RateTrial>& trials) {
  size_t best = trials.size();
  for (size_t i = 0; i < trials.size(); ++i) {
    if (!std::isfinite(trials[i].log_loss)) continue;
    if (best == trials.size() || trials[i].log_loss < trials[best].log_loss) best = i;
  }
  return best;
}

void judge_cell(Cell& cell, const RateGrid& grid) {
  cell.best = best_trial(cell.trials);
  cell.bracketed = cell.refined = false;
  if (cell.best == cell.trials.size()) return;
  const auto& t = cell.trials;
  const size_t i = cell.best;
  cell.log2_rate = std::log2(t[i].learning_rate);
  const auto next_to = [&](size_t a, size_t b) {
    return std::fabs(grid.position(t[a].learning_rate) - grid.position(t[b].learning_rate)) < 1.01;
  };
  cell.bracketed = i > 0 && i + 1 < t.size() && next_to(i, i - 1) && next_to(i, i + 1);
  if (!cell.bracketed || !std::isfinite(t[i - 1].log_loss) || !std::isfinite(t[i + 1].log_loss))
    return;
  const double x0 = std::log2(t[i - 1].learning_rate), x1 = cell.log2_rate,
               x2 = std::log2(t[i + 1].learning_rate);
  const double left = (t[i].log_loss - t[i - 1].log_loss) / (x1 - x0);
  const double right = (t[i + 1].log_loss - t[i].log_loss) / (x2 - x1);
  const double curvature = (right - left) / (x2 - x0);
  if (!(curvature > 0)) return;
  cell.refined = true;
  cell.log2_rate = (x0 + x1) / 2 - left / (2 * curvature);
}

namespace {

using CellKey = std::tuple<std::string, double, double, double>;  // model, epochs, batch, size

struct Gathered {
  const Run* any = nullptr;
  std::map<double, std::vector<const Run*>> finished;  // by learning rate
  std::map<double, bool> diverged;
};

Cell make_cell(const Gathered& gathered, const RateGrid& grid) {
  Cell cell;
  cell.model = gathered.any->model;
  cell.size = gathered.any->train_flops_per_image;
  cell.epochs = gathered.any->epochs;
  cell.images = gathered.any->images_seen;
  cell.batch = gathered.any->batch;
  cell.image_size = gathered.any->image_size;
  // One trial a notch: rates that differ only in their last digits are the same.
  std::map<double, std::vector<const Run*>> finished;
  const auto notch_of = [&](double rate) {
    for (const auto& [known, runs] : finished)
      if (grid.same(known, rate)) return known;
    return rate;
  };
  for (const auto& [rate, runs] : gathered.finished) {
    auto& all = finished[notch_of(rate)];
    all.insert(all.end(), runs.begin(), runs.end());
  }
  std::map<double, bool> diverged;
  for (const auto& [rate, flag] : gathered.diverged) {
    diverged[notch_of(rate)] = flag;
    finished[notch_of(rate)];
  }
  for (const auto& [rate, runs] : finished) {
    RateTrial trial{rate, 0, 0, 0, {}};
    double squares = 0;
    for (const Run* run : runs) {
      trial.log_loss += std::log(run->heldout_loss);
      trial.runs.push_back(run->run);
    }
    if (!runs.empty()) trial.log_loss /= static_cast<double>(runs.size());
    for (const Run* run : runs) {
      const double off = std::log(run->heldout_loss) - trial.log_loss;
      squares += off * off;
    }
    if (runs.size() > 1)
      trial.seed_spread = std::sqrt(squares / static_cast<double>(runs.size() - 1));
    if (diverged.count(rate) > 0) trial.log_loss = std::numeric_limits<double>::infinity();
    trial.loss = runs.size() == 1 ? runs[0]->heldout_loss : std::exp(trial.log_loss);
    std::sort(trial.runs.begin(), trial.runs.end());
    cell.trials.push_back(std::move(trial));
  }
  judge_cell(cell, grid);
  if (cell.best == cell.trials.size()) return cell;
  double flops = 0, hours = 0;
  const auto& best_runs = finished[cell.learning_rate()];
  for (const Run* run : best_runs) {
    flops += run->train_flops;
    hours += run->device_hours;
  }
  cell.train_flops = flops / static_cast<double>(best_runs.size());
  cell.device_hours = hours / static_cast<double>(best_runs.size());
  return cell;
}

}  // namespace

std::vector<Cell> make_cells(const RunSelection& selection, const RateGrid& grid) {
  std::map<CellKey, Gathered> gathered;
  const auto cell_of = [&](const Run& run) -> Gathered& {
    // NaN (a column left empty) would break the order.
    const auto number = [](double v) { return std::isnan(v) ? 0.0 : v; };
    auto& g = gathered[{run.model, run.epochs, number(run.batch), number(run.image_size)}];
    if (!g.any) g.any = &run;
    return g;
  };
  for (const Run& run : selection.used) cell_of(run).finished[run.learning_rate].push_back(&run);
  for (const Run& run : selection.diverged) cell_of(run).diverged[run.learning_rate] = true;
  std::vector<Cell> cells;
  for (const auto& [key, g] : gathered) {
    Cell cell = make_cell(g, grid);
    if (cell.best < cell.trials.size()) cells.push_back(std::move(cell));
  }
  std::stable_sort(cells.begin(), cells.end(), [](const Cell& a, const Cell& b) {
    return std::tie(a.size, a.model, a.epochs) < std::tie(b.size, b.model, b.epochs);
  });
  return cells;
}

}  // namespace nf::analysis

// See study.h.
#include "analysis/study.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/error.h"

namespace nf::analysis {
namespace {

std::vector<LawPoint> law_points(const std::vector<Cell>& cells) {
  std::vector<LawPoint> points;
  points.reserve(cells.size());
  for (const Cell& cell : cells) points.push_back({cell.size, cell.images, cell.loss()});
  return points;
}

std::vector<double> budgets(const std::vector<Cell>& cells) {
  std::vector<double> out;
  out.reserve(cells.size());
  for (const Cell& cell : cells) out.push_back(cell.epochs);
  return out;
}

std::optional<FittedCurve> fit_frontier(const Study& study, Form form) {
  if (static_cast<int>(study.frontier.runs.size()) < form_least_points(form)) return std::nullopt;
  std::vector<double> x, y;
  for (const Run& run : study.frontier.runs) {
    x.push_back(study.frontier.compute(run));
    y.push_back(run.heldout_loss);
  }
  const CurveData data(std::move(x), std::move(y), "frontier");
  if (!(data.x().back() >= 2 * data.x().front())) return std::nullopt;
  FittedCurve curve;
  curve.fit = fit_curve(data, form, study.options.delta);
  curve.bootstrap = bootstrap_curve(data, curve.fit, study.options.bootstrap);
  return curve;
}

// The hidden cells' losses from the law of the others; nothing when too few are left.
std::optional<Holdout> predict_hidden(const Study& study, const std::string& name,
                                      const std::vector<bool>& hidden) {
  std::vector<Cell> shown;
  std::vector<const Cell*> out;
  for (size_t i = 0; i < study.cells.size(); ++i) {
    if (hidden[i])
      out.push_back(&study.cells[i]);
    else
      shown.push_back(study.cells[i]);
  }
  std::sort(out.begin(), out.end(),
            [](const Cell* a, const Cell* b) { return a->train_flops < b->train_flops; });
  const auto points = law_points(shown);
  if (out.empty()) return std::nullopt;
  try {
    check_law_points(points, budgets(shown), LawNeeds{});
  } catch (const Error&) {
    return std::nullopt;  // reported as a warning by the caller
  }
  const ScalingLaw law = fit_law(points, study.options.delta);
  const LawBootstrap bootstrap =
      bootstrap_law(points, law, study.options.bootstrap, study.options.delta);
  const std::vector<double> residuals = log_residuals(points, law);
  Holdout holdout;
  holdout.name = name;
  holdout.fitted_cells = static_cast<int>(shown.size());
  for (const Cell* cell : out) {
    holdout.runs.push_back(cell->run());
    holdout.compute.push_back(cell->train_flops);
    holdout.actual.push_back(cell->loss());
    holdout.predicted.push_back(law.loss(cell->size, cell->images));
    holdout.interval90.push_back(predict_interval(bootstrap, residuals, cell->size, cell->images,
                                                  study.options.bootstrap.seed,
                                                  10 + holdout.runs.size()));
  }
  holdout.rmsle = rmsle(holdout.predicted, holdout.actual);
  return holdout;
}

void hide_and_predict(Study& study) {
  std::vector<bool> last(study.cells.size()), top(study.cells.size());
  std::set<std::string> dearest;
  const auto& runs = study.frontier.runs;
  for (size_t i = runs.size() - std::min<size_t>(3, runs.size()); i < runs.size(); ++i)
    dearest.insert(runs[i].run);
  for (size_t i = 0; i < study.cells.size(); ++i) {
    const auto& trial = study.cells[i].trials[study.cells[i].best];
    for (const auto& run : trial.runs) last[i] = last[i] || dearest.count(run) > 0;
    top[i] = study.cells[i].train_flops > study.largest_compute / 8;
  }
  for (const auto& [name, hidden] :
       {std::pair("the three most expensive frontier cells", last),
        std::pair("all cells above an eighth of the largest compute", top)}) {
    if (auto holdout = predict_hidden(study, name, hidden))
      study.holdouts.push_back(std::move(*holdout));
    else
      study.warnings.push_back(fmt::format(
          "hidden points: {} cannot be hidden, too few cells would be left for the law", name));
  }
}

void fit_reuse(Study& study) {
  std::set<double> repeated;
  for (const Cell& cell : study.cells)
    if (cell.epochs > 1) repeated.insert(cell.epochs);
  if (repeated.size() < 3) {
    study.warnings.push_back(
        fmt::format("--reuse: {} budgets above one epoch, 3 are needed; repetition is not fitted",
                    repeated.size()));
    return;
  }
  study.reuse_law = fit_law_with_reuse(study.points, study.images_per_epoch, study.options.delta);
  std::vector<LawPoint> shown;
  std::vector<double> plain, reused, actual;
  std::vector<const Cell*> hidden;
  for (const Cell& cell : study.cells) {
    if (cell.train_flops > study.largest_compute / 8)
      hidden.push_back(&cell);
    else
      shown.push_back({cell.size, cell.images, cell.loss()});
  }
  if (shown.size() < 10 || hidden.empty()) return;
  const ScalingLaw without = fit_law(shown, study.options.delta);
  const ScalingLaw with = fit_law_with_reuse(shown, study.images_per_epoch, study.options.delta);
  for (const Cell* cell : hidden) {
    actual.push_back(cell->loss());
    plain.push_back(without.loss(cell->size, cell->images));
    reused.push_back(
        with.loss(cell->size, effective_images(cell->images, study.images_per_epoch, with.reuse)));
  }
  study.plain_rmsle = rmsle(plain, actual);
  study.reuse_rmsle = rmsle(reused, actual);
}

void measure_rates(Study& study) {
  std::map<std::tuple<double, std::string, std::string>, std::vector<double>> speeds;
  std::vector<double> prices, epochs;
  for (const Run& run : study.selection.used) {
    epochs.push_back(run.images_seen / run.epochs);
    if (!(run.device_hours > 0)) continue;
    speeds[{run.train_flops_per_image, run.model, run.device}].push_back(run.images_seen /
                                                                         (run.device_hours * 3600));
    if (run.cost_usd > 0) prices.push_back(run.cost_usd / run.device_hours);
  }
  for (auto& [key, values] : speeds) {
    const auto& [size, model, device] = key;
    const int runs = static_cast<int>(values.size());
    const double images = median(std::move(values));
    study.rates.push_back({model, device, size, images, images * size, runs});
  }
  study.images_per_epoch = median(std::move(epochs));
  if (!prices.empty()) study.usd_per_device_hour = median(std::move(prices));
  for (const auto* runs : {&study.selection.used, &study.selection.diverged})
    for (const Run& run : *runs) {
      if (run.device_hours > 0) study.total_device_hours += run.device_hours;
      if (run.cost_usd > 0) study.total_cost_usd += run.cost_usd;
    }
}

void warn(Study& study) {
  auto& w = study.warnings;
  if (!study.not_bracketed.empty())
    w.push_back(
        fmt::format("not_bracketed: the best learning rate is at the end of the range in {} "
                    "cells: {}",
                    study.not_bracketed.size(), fmt::join(study.not_bracketed, ", ")));
  std::set<std::string> devices;
  for (const Run& run : study.selection.used) devices.insert(run.device);
  if (devices.size() > 1)
    w.push_back(fmt::format("{} different devices made these runs: compute is counted in FLOPs",
                            devices.size()));
  std::set<double> batches;
  for (const Run& run : study.selection.used)
    if (!std::isnan(run.batch)) batches.insert(run.batch);
  if (batches.size() > 1)
    w.push_back("runs of different batch sizes are in one fit, each batch in cells of its own");
  for (auto& text : law_warnings(study.law, study.points)) w.push_back(std::move(text));
  const auto& c = study.law_bootstrap.convergence;
  if (c.doubtful())
    w.push_back(fmt::format("bootstrap of the law: only {} of {} samples converged{}", c.converged,
                            c.samples, c.usable() ? "" : "; no interval is given"));
  for (const auto* curve : {&study.frontier_plc, &study.frontier_pl})
    if (*curve && (*curve)->fit.no_trend)
      w.push_back("no trend: the frontier does not fall with compute; alpha = 0");
  for (auto& text : rate_trend_warnings(study.trend)) w.push_back(std::move(text));
}

}  // namespace

std::string cell_name(const Cell& cell) {
  return fmt::format("{} at {} epochs", cell.model, cell.epochs);
}

Study run_study(const RunTable& table, const StudyOptions& options) {
  Study study;
  study.options = options;
  study.table_name = table.name;
  study.input_hash = table.hash;
  study.rows = table.rows;
  study.selection = select_runs(table, options.allow_missed);
  study.cells = make_cells(study.selection, options.grid);
  study.points = law_points(study.cells);
  check_law_points(study.points, budgets(study.cells), LawNeeds{});
  for (const Cell& cell : study.cells) {
    study.largest_compute = std::max(study.largest_compute, cell.train_flops);
    if (!cell.bracketed) study.not_bracketed.push_back(cell_name(cell));
  }
  measure_rates(study);
  study.frontier = find_frontier(study.selection.used, study.options.flops);
  study.frontier_plc = fit_frontier(study, Form::kPowerLawConstant);
  study.frontier_pl = fit_frontier(study, Form::kPowerLaw);
  if (!study.frontier_plc)
    study.warnings.push_back(fmt::format(
        "the frontier has {} runs: too few, or too close, for a power law with a constant",
        study.frontier.runs.size()));
  study.law = fit_law(study.points, options.delta);
  study.law_bootstrap = bootstrap_law(study.points, study.law, options.bootstrap, options.delta);
  std::vector<RatePoint> rates;
  for (const Cell& cell : study.cells) rates.push_back({cell.size, cell.epochs, cell.log2_rate});
  study.trend = fit_rate_trend(rates, options.rate_cap);
  hide_and_predict(study);
  if (options.reuse) fit_reuse(study);
  warn(study);
  return study;
}

}  // namespace nf::analysis

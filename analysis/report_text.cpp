// The words and tables of a report: what was run and what it cost, the best model per budget,
// exponents, laws, hidden points, exclusions, warnings; then the plots and all cells.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "analysis/report.h"
#include "core/version.h"

namespace nf::analysis {
namespace {

using Kind = ReportBlock::Kind;
using Rows = std::vector<std::vector<std::string>>;

std::string n(double v, int digits = 4) {
  if (!std::isfinite(v)) return "not known";
  return fmt::format("{:.{}g}", v, digits);
}

std::string with(double v, const Interval& i, int digits = 4) {
  if (!std::isfinite(i.lo)) return n(v, digits) + " (no interval: the bootstrap did not converge)";
  return fmt::format("{} [{}, {}]", n(v, digits), n(i.lo, digits), n(i.hi, digits));
}

template <class F>
std::string law_value(const Study& study, F value, int digits = 4) {
  if (!study.law_bootstrap.convergence.usable())
    return n(value(study.law), digits) + " (no interval: the bootstrap did not converge)";
  return with(value(study.law), study.law_bootstrap.of(value), digits);
}

void what_was_run(const Study& study, std::vector<ReportBlock>& out) {
  std::set<std::string> models;
  std::set<double> epochs, rates, seeds;
  for (const Run& run : study.selection.used) {
    models.insert(run.model);
    epochs.insert(run.epochs);
    rates.insert(run.learning_rate);
    seeds.insert(std::isnan(run.seed) ? 0 : run.seed);
  }
  std::vector<std::string> items = {
      fmt::format("{} rows: {} runs are used in fits, {} diverged (they only close brackets of the "
                  "learning rate)",
                  study.rows, study.selection.used.size(), study.selection.diverged.size()),
      fmt::format("{} models ({}), {} epoch budgets ({}), {} learning rates, {} seed(s), {} cells",
                  models.size(), fmt::join(models, ", "), epochs.size(), fmt::join(epochs, ", "),
                  rates.size(), seeds.size(), study.cells.size()),
      fmt::format("{} images an epoch", n(study.images_per_epoch, 10)),
      fmt::format("cost of all runs: {} device-hours{}", n(study.total_device_hours, 6),
                  study.total_cost_usd > 0 ? fmt::format(", {:.2f} USD", study.total_cost_usd)
                                           : "; the table has no prices")};
  out.push_back({Kind::kHeading, "What was run, and what it cost", {}, {}});
  out.push_back({Kind::kList, "", std::move(items), {}});
}

void best_per_budget(const Study& study, std::vector<ReportBlock>& out) {
  out.push_back({Kind::kHeading, "Best model per budget", {}, {}});
  Rows rows;
  double low = study.largest_compute, most = 0;  // most epochs of a run
  std::vector<const Cell*> models;
  for (const Cell& cell : study.cells) {
    low = std::min(low, cell.train_flops);
    most = std::max(most, cell.epochs);
    if (models.empty() || models.back()->model != cell.model) models.push_back(&cell);
  }
  const double high = study.largest_compute * 10;
  for (int i = 0; i < 7; ++i) {
    const double compute = low * 2 * std::pow(high / (low * 2), i / 6.0);
    const auto loss = [&](const Cell* c) { return study.law.loss(c->size, compute / c->size); };
    const Cell* best = *std::min_element(models.begin(), models.end(),
                                         [&](auto* a, auto* b) { return loss(a) < loss(b); });
    const double images = compute / best->size, epochs = images / study.images_per_epoch;
    const double factor = compute / study.largest_compute;
    const Interval ci = study.law_bootstrap.convergence.usable()
                            ? study.law_bootstrap.loss(best->size, images)
                            : Interval{NAN, NAN};
    rows.push_back({n(compute, 3), best->model, n(epochs, 3),
                    n(std::exp2(study.trend.log2_rate(best->size, epochs)), 3),
                    with(loss(best), ci, 5),
                    factor > 1 ? fmt::format("extrapolated by a factor {}", n(factor, 3))
                    : epochs > most * 1.01 ? fmt::format("more epochs than any run ({})", n(most))
                                           : "inside the data"});
  }
  out.push_back({Kind::kTable,
                 "",
                 {"compute (FLOP)", "model", "epochs", "learning rate", "loss [95 %]", ""},
                 std::move(rows)});
  out.push_back({Kind::kText,
                 "Epochs and model follow from the law below; the learning rate from the trend "
                 "(its rms error stands beside it). Where fine-tuning is the aim, slightly larger "
                 "models with slightly fewer epochs often transfer better than the lowest loss.",
                 {},
                 {}});
}

void laws(const Study& study, std::vector<ReportBlock>& out) {
  using L = const ScalingLaw&;
  out.push_back({Kind::kHeading, "Exponents and laws", {}, {}});
  out.push_back(
      {Kind::kText,
       fmt::format("At the best split of a budget C the model grows as C^{} and the images as C^{} "
                   "(95 % intervals; equal rates, as the published study found, would be 0.5 and "
                   "0.5).",
                   law_value(
                       study, +[](L l) { return l.exponent_size(); }),
                   law_value(
                       study, +[](L l) { return l.exponent_images(); })),
       {},
       {}});
  Rows rows = {{"L(F, D) = E + A / F^alpha + B / D^beta",
                law_value(
                    study, +[](L l) { return l.E; }),
                law_value(
                    study, +[](L l) { return l.A; }),
                law_value(
                    study, +[](L l) { return l.B; }),
                law_value(
                    study, +[](L l) { return l.alpha; }),
                law_value(
                    study, +[](L l) { return l.beta; })}};
  for (const auto& [name, curve] : {std::pair("frontier: E + A / x^alpha", &study.frontier_plc),
                                    std::pair("frontier: A / x^alpha", &study.frontier_pl)}) {
    if (!*curve) continue;
    const auto named = (*curve)->fit.named();
    const auto ci = (*curve)->bootstrap.parameters();
    std::vector<std::string> text;
    for (size_t i = 0; i < named.size(); ++i)
      text.push_back(with(named[i].second, ci.empty() ? Interval{NAN, NAN} : ci[i]));
    rows.push_back(
        {name, (*curve)->fit.form == Form::kPowerLaw ? "-" : text[0], text[1], "-", text[2], "-"});
  }
  out.push_back(
      {Kind::kTable, "", {"law [95 %]", "E", "A", "B", "alpha", "beta"}, std::move(rows)});
  out.push_back({Kind::kText,
                 fmt::format("F: training FLOP an image; D: images seen; x: {}. Fits minimise the "
                             "sum of Huber(ln fitted - ln measured) with delta {}; intervals from "
                             "{} bootstrap samples (seed {}).",
                             study.frontier.device_hours ? "device-hours (one device made all runs)"
                                                         : "training FLOP",
                             study.options.delta, study.options.bootstrap.samples,
                             study.options.bootstrap.seed),
                 {},
                 {}});
  const auto& c = study.trend.coefficients;
  out.push_back(
      {Kind::kText,
       fmt::format("Learning rate: log2 lr = min({}, {} {:+.4g} f {:+.4g} e {:+.4g} f e) with f = "
                   "log2(F / {}), e = log2(epochs); {} cells below the cap, rms {} in log2 (given "
                   "in place of an interval: the cells are optima of factor-2 grids).",
                   n(study.trend.cap_log2), n(c[0]), c[1], c[2], c[3], n(study.trend.smallest_size),
                   study.trend.cells_used, n(study.trend.rms_log2)),
       {},
       {}});
  if (study.reuse_law)
    out.push_back(
        {Kind::kText,
         fmt::format("Repetition: R = {} (no interval: one fit); error on the hidden "
                     "cells {} with it, {} without: it {} the error.",
                     n(study.reuse_law->reuse), n(study.reuse_rmsle), n(study.plain_rmsle),
                     study.reuse_rmsle < study.plain_rmsle ? "lowers" : "does not lower"),
         {},
         {}});
}

void hidden(const Study& study, std::vector<ReportBlock>& out) {
  out.push_back({Kind::kHeading, "Hidden points: can the law predict?", {}, {}});
  for (const Holdout& h : study.holdouts) {
    int inside = 0;
    Rows rows;
    for (size_t i = 0; i < h.runs.size(); ++i) {
      const bool in = h.interval90[i].lo <= h.actual[i] && h.actual[i] <= h.interval90[i].hi;
      inside += in ? 1 : 0;
      rows.push_back({h.runs[i], n(h.compute[i], 3), with(h.predicted[i], h.interval90[i], 6),
                      n(h.actual[i], 7), in ? "inside" : "outside"});
    }
    out.push_back(
        {Kind::kText,
         fmt::format("Hidden: {}. Fitted on the other {} cells. RMSLE {}; {} of {} lie in "
                     "their 90 % interval.",
                     h.name, h.fitted_cells, n(h.rmsle), inside, h.runs.size()),
         {},
         {}});
    out.push_back({Kind::kTable,
                   "",
                   {"run", "compute (FLOP)", "predicted [90 %]", "measured", ""},
                   std::move(rows)});
  }
  if (study.holdouts.empty())
    out.push_back({Kind::kText, "Too few cells to hide some of them.", {}, {}});
}

void exclusions(const Study& study, const std::vector<std::string>& missing,
                std::vector<ReportBlock>& out) {
  out.push_back({Kind::kHeading, "Excluded", {}, {}});
  Rows rows;
  for (const auto& [reason, runs] : study.selection.excluded)
    rows.push_back({reason, std::to_string(runs.size()), fmt::format("{}", fmt::join(runs, ", "))});
  if (rows.empty())
    out.push_back({Kind::kText, "Nothing was excluded.", {}, {}});
  else
    out.push_back({Kind::kTable, "", {"reason", "runs", "which"}, std::move(rows)});
  out.push_back({Kind::kHeading, "Warnings", {}, {}});
  std::vector<std::string> all = study.warnings;
  for (const auto& text : missing) all.push_back("not drawn: " + text);
  if (all.empty())
    out.push_back({Kind::kText, "None.", {}, {}});
  else
    out.push_back({Kind::kList, "", std::move(all), {}});
  out.push_back(
      {Kind::kText,
       "What no fit can see: warm-up, schedule and learning-rate faults move the exponents (from "
       "0.50 to 0.83 in the data of arXiv 2406.19146); runs that lost samples bend the curves.",
       {},
       {}});
}

void cells_table(const Study& study, std::vector<ReportBlock>& out) {
  out.push_back({Kind::kHeading, "All cells", {}, {}});
  Rows rows;
  for (const Cell& cell : study.cells) {
    const auto& best = cell.trials[cell.best];
    rows.push_back({cell.model, n(cell.epochs), n(cell.train_flops, 4), n(cell.device_hours, 5),
                    n(cell.learning_rate()), cell.refined ? n(std::exp2(cell.log2_rate)) : "-",
                    cell.bracketed ? "yes" : "no", n(cell.loss(), 7),
                    best.runs.size() > 1 ? n(best.seed_spread, 3) : "one seed", cell.run()});
  }
  out.push_back({Kind::kTable,
                 "",
                 {"model", "epochs", "compute (FLOP)", "device-hours", "learning rate", "refined",
                  "bracketed", "loss", "spread over seeds (ln)", "run"},
                 std::move(rows)});
  Rows rates;
  for (const auto& r : study.rates)
    rates.push_back({r.model, r.device.empty() ? "(not named)" : r.device, n(r.images_per_second),
                     n(r.flops_per_second / 1e12), std::to_string(r.runs)});
  out.push_back({Kind::kHeading, "Speeds (medians over the runs)", {}, {}});
  out.push_back({Kind::kTable,
                 "",
                 {"model", "device", "images a device-second", "TFLOP/s a device", "runs"},
                 std::move(rates)});
  out.push_back({Kind::kText,
                 fmt::format("Made by nf-fit {} from a table with content hash {}. The same table "
                             "gives the same bytes.",
                             kVersion, study.input_hash),
                 {},
                 {}});
}

}  // namespace

std::vector<ReportBlock> study_text(const Study& study, const std::vector<Plot>& plots,
                                    const std::vector<std::string>& missing) {
  std::vector<ReportBlock> out;
  what_was_run(study, out);
  best_per_budget(study, out);
  laws(study, out);
  hidden(study, out);
  exclusions(study, missing, out);
  if (!plots.empty()) out.push_back({Kind::kHeading, "Plots", {}, {}});
  for (const Plot& plot : plots) {
    out.push_back({Kind::kPlot, plot.name, {plot.title, plot.caption}, {}});
  }
  cells_table(study, out);
  return out;
}

}  // namespace nf::analysis

// The plots of a study: which series they show. Drawing is plot.h's.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "analysis/learning_curve.h"
#include "analysis/report.h"

namespace nf::analysis {
namespace {

struct ModelCells {
  std::string name;
  double size;
  std::vector<const Cell*> cells;  // by epochs
};

std::vector<ModelCells> by_model(const Study& study) {
  std::vector<ModelCells> models;
  for (const Cell& cell : study.cells) {
    if (models.empty() || models.back().name != cell.model)
      models.push_back({cell.model, cell.size, {}});
    models.back().cells.push_back(&cell);
  }
  return models;
}

std::vector<double> log_grid(double low, double high, int n) {
  std::vector<double> x;
  x.reserve(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) x.push_back(low * std::pow(high / low, i / (n - 1.0)));
  return x;
}

std::string compute_label(const Study& study) {
  return study.frontier.device_hours ? "Training compute (device-hours)"
                                     : "Training compute (FLOP)";
}

double compute_of(const Study& study, const Cell& cell) {
  return study.frontier.device_hours ? cell.device_hours : cell.train_flops;
}

std::vector<std::pair<double, std::string>> ticks_at(const std::set<double>& values) {
  std::vector<std::pair<double, std::string>> ticks;
  ticks.reserve(values.size());
  for (const double v : values) ticks.emplace_back(v, fmt::format("{:.4g}", v));
  return ticks;
}

Plot transfer_plot(const Study& study, std::vector<std::string>& missing) {
  const bool transfer = std::any_of(study.selection.used.begin(), study.selection.used.end(),
                                    [](const Run& r) { return r.transfer_top1 > 0; });
  Plot plot{"transfer", "Accuracy after fine-tuning", "", {}, {}, {}, {}};
  plot.caption = transfer
                     ? "Top-1 after fine-tuning against pretraining compute, one marker a model."
                     : "Top-1 on the held-out images against pretraining compute; the table has no "
                       "transfer_top1, so this is accuracy before fine-tuning.";
  if (!transfer) plot.title = "Held-out accuracy";
  plot.x = {compute_label(study), true, 0, 0, {}};
  plot.y = {transfer ? "Top-1 after fine-tuning (%)" : "Held-out top-1 (%)", false, 0, 0, {}};
  std::map<double, std::pair<std::string, std::vector<PlotPoint>>> models;
  double most = 0;
  for (const Run& run : study.selection.used) {
    const double top1 = transfer ? run.transfer_top1 : run.heldout_top1;
    if (!(top1 > 0)) continue;
    most = std::max(most, top1);
    auto& entry = models[run.train_flops_per_image];
    entry.first = run.model;
    entry.second.push_back({study.frontier.compute(run), top1});
  }
  int i = 0;
  for (auto& [size, entry] : models) {
    std::sort(entry.second.begin(), entry.second.end(),
              [](const auto& a, const auto& b) { return std::tie(a.x, a.y) < std::tie(b.x, b.y); });
    if (most <= 1)
      for (auto& p : entry.second) p.y *= 100;
    plot.series.push_back({entry.first, PlotStyle::kPoints, i, i, std::move(entry.second)});
    ++i;
  }
  if (plot.series.empty()) missing.push_back("transfer: no row has transfer_top1 or heldout_top1");
  return plot;
}

Plot compute_plot(const Study& study) {
  Plot plot{"loss_vs_compute", "Held-out loss against compute", "", {}, {}, {}, {}};
  plot.caption =
      "Best learning rate of each cell, one line a model over its epoch budgets; the frontier's "
      "power law with constant and its 95 % band. Right of the last point the law is extrapolated.";
  plot.x = {compute_label(study), true, 0, 0, {}};
  plot.y = {"Held-out loss (nats)", true, 0, 0, {}};
  if (study.frontier_plc) {
    const auto& curve = *study.frontier_plc;
    double high = 0;
    for (const Cell& cell : study.cells) high = std::max(high, compute_of(study, cell));
    const double low = study.frontier.compute(study.frontier.runs.front());
    PlotSeries band{"95 % band", PlotStyle::kBand, kGrey, 0, {}};
    PlotSeries line{"frontier law", PlotStyle::kDashed, kBlack, 0, {}};
    for (const double x : log_grid(low, high * 3, 60)) {
      const Interval i = curve.bootstrap.convergence.usable()
                             ? curve.bootstrap.curve(x, 0.95)
                             : Interval{curve.fit.predict(x), curve.fit.predict(x)};
      band.points.push_back({x, curve.fit.predict(x), i.lo, i.hi});
      line.points.push_back({x, curve.fit.predict(x)});
    }
    plot.series.push_back(std::move(band));
    plot.series.push_back(std::move(line));
  }
  int i = 0;
  for (const auto& model : by_model(study)) {
    PlotSeries s{model.name, PlotStyle::kLinePoints, i, i, {}};
    for (const Cell* cell : model.cells)
      s.points.push_back({compute_of(study, *cell), cell->loss()});
    plot.series.push_back(std::move(s));
    ++i;
  }
  return plot;
}

Plot rate_plot(const Study& study) {
  Plot plot{"learning_rate", "Best learning rate against epochs", "", {}, {}, {}, {}};
  plot.caption =
      "Optimum of each cell (parabola through the best rate and its neighbours where the table "
      "allows it, else the grid's best) and the fitted trend, for the smallest, a middle and the "
      "largest model; markers stand a little aside where several share a place.";
  std::set<double> epochs;
  for (const Cell& cell : study.cells) epochs.insert(cell.epochs);
  plot.x = {"Epoch budget (passes over the data)", true, 0, 0, ticks_at(epochs)};
  const auto models = by_model(study);
  const std::set<size_t> shown = {0, models.size() / 2, models.size() - 1};
  double low = 1e300, high = 0;
  int i = 0;
  for (const size_t m : shown) {
    PlotSeries points{models[m].name, PlotStyle::kPoints, i, i, {}};
    PlotSeries line{models[m].name + " trend", PlotStyle::kLine, i, i, {}};
    const double aside = std::pow(1.04, i - 1);  // so that equal optima do not hide each other
    for (const Cell* cell : models[m].cells)
      points.points.push_back({cell->epochs * aside, std::exp2(cell->log2_rate)});
    for (const double e : log_grid(*epochs.begin(), *epochs.rbegin(), 60))
      line.points.push_back({e, std::exp2(study.trend.log2_rate(models[m].size, e))});
    for (const auto* s : {&points, &line})
      for (const auto& p : s->points) {
        low = std::min(low, p.y);
        high = std::max(high, p.y);
      }
    plot.series.push_back(std::move(line));
    plot.series.push_back(std::move(points));
    ++i;
  }
  std::set<double> rates;
  const RateGrid& grid = study.options.grid;
  for (double k = std::floor(grid.position(low)); k <= std::ceil(grid.position(high)); ++k)
    rates.insert(grid.rate(k));
  plot.y = {"Learning rate", true, *rates.begin(), *rates.rbegin() * 1.05, ticks_at(rates)};
  return plot;
}

Plot curve_plot(const Study& study, std::vector<std::string>& missing) {
  Plot plot{"learning_curve", "", "", {}, {}, {}, {}};
  const auto models = by_model(study);
  const auto& model =
      *std::max_element(models.begin(), models.end(), [](const auto& a, const auto& b) {
        return std::pair(a.cells.size(), a.size) < std::pair(b.cells.size(), b.size);
      });
  plot.title = "Learning curve of " + model.name;
  plot.x = {"Images seen", true, 0, 0, {}};
  plot.y = {"Held-out loss (nats)", true, 0, 0, {}};
  std::vector<double> x, y;
  PlotSeries points{"cells of " + model.name, PlotStyle::kPoints, 0, 0, {}};
  for (const Cell* cell : model.cells) {
    x.push_back(cell->images);
    y.push_back(cell->loss());
    points.points.push_back({cell->images, cell->loss()});
  }
  const CurveData data(x, y);
  if (data.size() < 4 || data.x().back() < 2 * data.x().front()) {
    missing.push_back("learning_curve: " + model.name + " has fewer than 4 budgets");
    return plot;
  }
  const bool regions_possible = static_cast<int>(data.size()) >= form_least_points(Form::kSigmoid);
  const CurveFit fit = fit_curve(data, Form::kPowerLawConstant, study.options.delta);
  const double low = data.x().front() / 1.3, high = data.x().back() * 1.3;
  PlotSeries line{"power law with constant", PlotStyle::kLine, 1, 0, {}};
  for (const double at : log_grid(low, high, 60)) line.points.push_back({at, fit.predict(at)});
  plot.x.low = low;
  plot.x.high = high;
  plot.caption = "Loss of one model over its epoch budgets. ";
  if (regions_possible) {
    const CurveFit sigmoid = fit_curve(data, Form::kSigmoid, study.options.delta);
    if (const auto r = find_regions(sigmoid, data)) {
      const double a = std::clamp(r->x_lo, low, high), b = std::clamp(r->x_hi, low, high);
      const auto wide = [&](double from, double to) {
        return std::log(to / from) > 0.12 * std::log(high / low);
      };
      plot.regions.push_back({a, b, wide(a, b) ? "power law" : "", true});
      if (wide(low, a)) plot.regions.push_back({low, a, "small data", false});
      if (wide(b, high)) plot.regions.push_back({b, high, "irreducible", false});
      plot.caption += fmt::format(
          "Regions from the sigmoid form: power law from {:.3g} to {:.3g} images (slope at most "
          "{:.3g}), {} of {} points in it.",
          r->x_lo, r->x_hi, r->max_slope, r->points[1], data.size());
      if (r->points[1] == 0)
        plot.caption += " No point lies in the power-law region: no exponent is trustworthy.";
    }
  } else {
    plot.caption += "Fewer than 6 budgets: the three regions are not fitted.";
  }
  plot.series = {std::move(line), std::move(points)};
  return plot;
}

// Up to five budgets, each with as many cells within 10 % of it as possible.
std::vector<double> crowded_budgets(const std::vector<Cell>& cells) {
  const auto near = [](double a, double b) { return std::fabs(std::log(a / b)) < std::log(1.1); };
  std::vector<std::pair<int, double>> counted;
  for (const Cell& cell : cells) {
    int count = 0;
    for (const Cell& other : cells) count += near(cell.train_flops, other.train_flops) ? 1 : 0;
    counted.emplace_back(-count, cell.train_flops);
  }
  std::sort(counted.begin(), counted.end());
  std::vector<double> budgets;
  for (const auto& [count, budget] : counted)
    if (budgets.size() < 5 &&
        std::none_of(budgets.begin(), budgets.end(), [&, b = budget](double v) {
          return std::fabs(std::log(v / b)) < std::log(1.5);
        }))
      budgets.push_back(budget);
  std::sort(budgets.begin(), budgets.end());
  return budgets;
}

Plot isoflop_plot(const Study& study) {
  Plot plot{"isoflop", "Loss against model size at equal compute", "", {}, {}, {}, {}};
  plot.caption =
      "Curves: the fitted law at the budgets that most cells share; filled markers: cells within "
      "10 % of a budget; open squares: the law's optimum of each budget.";
  plot.x = {"Model size (training FLOP an image)", true, 0, 0, {}};
  plot.y = {"Held-out loss (nats)", true, 0, 0, {}};
  double smallest = 1e300, largest = 0;
  for (const Cell& cell : study.cells) {
    smallest = std::min(smallest, cell.size);
    largest = std::max(largest, cell.size);
  }
  PlotSeries optima{"optimum", PlotStyle::kDashed, kBlack, 0, {}};
  PlotSeries optimum_marks{"", PlotStyle::kPoints, kBlack, 7, {}};
  std::vector<PlotSeries> all;
  int i = 0;
  for (const double budget : crowded_budgets(study.cells)) {
    PlotSeries line{fmt::format("{:.2g} FLOP", budget), PlotStyle::kLine, i, i, {}};
    PlotSeries cells{"", PlotStyle::kPoints, i, i, {}};
    for (const double f : log_grid(smallest / 1.6, largest * 1.6, 50))
      line.points.push_back({f, study.law.loss(f, budget / f)});
    for (const Cell& cell : study.cells)
      if (std::fabs(std::log(cell.train_flops / budget)) < std::log(1.1))
        cells.points.push_back({cell.size, cell.loss()});
    const double best = study.law.best_size(budget);
    if (best > smallest / 1.6 && best < largest * 1.6) {
      optima.points.push_back({best, study.law.loss(best, budget / best)});
      optimum_marks.points.push_back(optima.points.back());
    }
    all.push_back(std::move(line));
    all.push_back(std::move(cells));
    ++i;
  }
  all.push_back(std::move(optima));
  all.push_back(std::move(optimum_marks));
  plot.series = std::move(all);
  return plot;
}

// How a budget is best spent: the size of the net, or the passes over the data.
Plot allocation_plot(const Study& study, bool epochs) {
  Plot plot{epochs ? "best_epochs" : "best_size", "", "", {}, {}, {}, {}};
  plot.title = epochs ? "Best epochs against compute" : "Best model size against compute";
  plot.caption = fmt::format(
      "The fitted law's best {} of each budget with its 95 % band; markers: the runs on the "
      "frontier.",
      epochs ? "number of epochs" : "size");
  plot.x = {"Training compute (FLOP)", true, 0, 0, {}};
  plot.y = {epochs ? "Epochs" : "Model size (training FLOP an image)", true, 0, 0, {}};
  const auto best = [&](const ScalingLaw& law, double compute) {
    const double size = law.best_size(compute);
    return epochs ? compute / size / study.images_per_epoch : size;
  };
  double low = 1e300, high = 0;
  for (const Run& run : study.frontier.runs) {
    low = std::min(low, run.train_flops);
    high = std::max(high, run.train_flops);
  }
  PlotSeries band{"95 % band", PlotStyle::kBand, kGrey, 0, {}};
  PlotSeries line{"best by the law", PlotStyle::kDashed, kBlack, 0, {}};
  for (const double x : log_grid(low, high * 3, 40)) {
    const double y = best(study.law, x);
    std::vector<double> samples;
    for (const auto& law : study.law_bootstrap.laws) samples.push_back(best(law, x));
    if (study.law_bootstrap.convergence.usable()) {
      const Interval i = central_interval(std::move(samples), 0.95);
      band.points.push_back({x, y, i.lo, i.hi});
    }
    line.points.push_back({x, y});
  }
  if (!band.points.empty()) plot.series.push_back(std::move(band));
  plot.series.push_back(std::move(line));
  int i = 0;
  for (const auto& model : by_model(study)) {
    PlotSeries s{model.name, PlotStyle::kPoints, i, i, {}};
    for (const Run& run : study.frontier.runs)
      if (run.model == model.name)
        s.points.push_back({run.train_flops, epochs ? run.epochs : run.train_flops_per_image});
    if (!s.points.empty()) plot.series.push_back(std::move(s));
    ++i;
  }
  return plot;
}

Plot residual_plot(const Study& study) {
  Plot plot{"residuals", "Residuals of the law", "", {}, {}, {}, {}};
  plot.caption = "Measured over fitted loss, minus one, for every cell of the fit.";
  plot.x = {"Training compute (FLOP)", true, 0, 0, {}};
  plot.y = {"Measured - fitted loss (%)", false, 0, 0, {}};
  int i = 0;
  double low = 1e300, high = 0;
  for (const auto& model : by_model(study)) {
    PlotSeries s{model.name, PlotStyle::kPoints, i, i, {}};
    for (const Cell* cell : model.cells) {
      s.points.push_back(
          {cell->train_flops, 100 * (cell->loss() / study.law.loss(cell->size, cell->images) - 1)});
      low = std::min(low, cell->train_flops);
      high = std::max(high, cell->train_flops);
    }
    plot.series.push_back(std::move(s));
    ++i;
  }
  plot.series.push_back({"", PlotStyle::kDashed, kBlack, 0, {{low / 1.2, 0}, {high * 1.2, 0}}});
  return plot;
}

Plot hidden_plot(const Study& study, std::vector<std::string>& missing) {
  Plot plot{"hidden_points", "Hidden cells: predicted against measured", "", {}, {}, {}, {}};
  plot.caption =
      "Cells that were hidden from the fit, predicted from the others, with 90 % prediction "
      "intervals. On the dashed line the prediction is exact.";
  plot.x = {"Measured held-out loss (nats)", false, 0, 0, {}};
  plot.y = {"Predicted held-out loss (nats)", false, 0, 0, {}};
  double low = 1e300, high = 0;
  int i = 0;
  for (const Holdout& h : study.holdouts) {
    PlotSeries s{i == 0 ? "three dearest on the frontier" : "above an eighth of C max",
                 PlotStyle::kErrorBars,
                 i,
                 i == 0 ? 0 : 7,
                 {}};  // filled and open: both are seen
    for (size_t k = 0; k < h.runs.size(); ++k) {
      s.points.push_back({h.actual[k], h.predicted[k], h.interval90[k].lo, h.interval90[k].hi});
      low = std::min({low, h.actual[k], h.predicted[k]});
      high = std::max({high, h.actual[k], h.predicted[k]});
    }
    plot.series.push_back(std::move(s));
    ++i;
  }
  if (plot.series.empty()) {
    missing.push_back("hidden_points: too few cells to hide some");
    return plot;
  }
  std::reverse(plot.series.begin(), plot.series.end());  // the small set on top
  plot.series.push_back({"exact", PlotStyle::kDashed, kBlack, 0, {{low, low}, {high, high}}});
  return plot;
}

}  // namespace

std::vector<Plot> study_plots(const Study& study, std::vector<std::string>& missing) {
  std::vector<Plot> plots = {
      transfer_plot(study, missing), compute_plot(study),  allocation_plot(study, true),
      allocation_plot(study, false), rate_plot(study),     curve_plot(study, missing),
      isoflop_plot(study),           residual_plot(study), hidden_plot(study, missing)};
  std::erase_if(plots, [](const Plot& plot) { return plot.series.empty(); });
  return plots;
}

}  // namespace nf::analysis

// See planner.h.
#include "analysis/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/csv.h"
#include "core/check.h"
#include "core/error.h"

namespace nf::analysis {
namespace {

// The loss and the learning rate that go with the run's size and epochs.
void expect(const PlanBasis& basis, PlannedRun& run) {
  run.loss = basis.law.loss(run.size, run.images);
  run.learning_rate = std::exp2(basis.trend.log2_rate(run.size, run.epochs));
  run.learning_rate_grid = basis.grid.rate(std::round(basis.grid.position(run.learning_rate)));
}

PlannedRun run_of(const PlanBasis& basis, const PlannedModel& model, double device_hours,
                  const PlanLimits& limits) {
  PlannedRun run;
  run.model = model.name;
  run.size = model.size;
  run.device_hours = device_hours;
  run.train_flops = device_hours * 3600 * model.flops_per_second;
  run.images = run.train_flops / model.size;
  run.epochs = run.images / basis.images_per_epoch;
  if (limits.max_epochs && run.epochs > *limits.max_epochs) {
    run.device_hours *= *limits.max_epochs / run.epochs;
    run.train_flops *= *limits.max_epochs / run.epochs;
    run.images *= *limits.max_epochs / run.epochs;
    run.epochs = *limits.max_epochs;
    run.bounded = true;
  }
  expect(basis, run);
  return run;
}

// By loss; equal ones by size.
std::vector<PlannedRun> ranked(const PlanBasis& basis, double device_hours,
                               const PlanLimits& limits) {
  std::vector<PlannedRun> runs;
  for (const auto& model : basis.models) runs.push_back(run_of(basis, model, device_hours, limits));
  std::stable_sort(runs.begin(), runs.end(),
                   [](const auto& a, const auto& b) { return a.loss < b.loss; });
  return runs;
}

std::optional<PlannedRun> next_larger(const PlanBasis& basis, const PlannedRun& best,
                                      const PlanLimits& limits) {
  const PlannedModel* next = nullptr;
  for (const auto& model : basis.models)
    if (model.size > best.size && (!next || model.size < next->size)) next = &model;
  if (!next) return std::nullopt;
  return run_of(basis, *next, best.train_flops / (3600 * next->flops_per_second), limits);
}

void check_distance(double factor, bool far, const char* option, const std::string& budget) {
  if (factor > kFarthest && !far)
    throw Error(ExitCode::kUsage, option,
                fmt::format("{} lie a factor {:.4g} beyond the largest run of the table; a law is "
                            "not trusted beyond {}",
                            budget, factor, kFarthest),
                "give a smaller budget, or --far to extrapolate all the same");
}

void check_budget(double device_hours, double factor, const PlanLimits& limits) {
  if (!(device_hours > 0) || !std::isfinite(device_hours))
    throw Error(ExitCode::kUsage, "--device-hours",
                fmt::format("{} is not a positive budget", device_hours));
  check_distance(factor, limits.far, "--device-hours",
                 fmt::format("{:.6g} device-hours", device_hours));
}

}  // namespace

void choose_models(PlanBasis& basis, const std::vector<std::string>& wanted) {
  if (wanted.empty()) return;
  std::vector<PlannedModel> chosen;
  std::vector<std::string> names;
  for (const auto& m : basis.models) names.push_back(m.name);
  for (const auto& text : wanted) {
    const size_t equals = text.find('=');
    const std::string name = text.substr(0, equals);
    const auto known = std::find_if(basis.models.begin(), basis.models.end(),
                                    [&](const auto& m) { return m.name == name; });
    if (known != basis.models.end()) {
      chosen.push_back(*known);
      continue;
    }
    const auto size = equals == std::string::npos
                          ? std::nullopt
                          : parse_number(std::string_view(text).substr(equals + 1));
    if (!size || !(*size > 0))
      throw Error(ExitCode::kUsage, "model", "unknown model '" + name + "'",
                  fmt::format("known: {}; another one as NAME=TRAIN_FLOPS_PER_IMAGE",
                              fmt::join(names, ", ")));
    const auto nearest = std::min_element(
        basis.models.begin(), basis.models.end(), [&](const auto& a, const auto& b) {
          return std::fabs(std::log(a.size / *size)) < std::fabs(std::log(b.size / *size));
        });
    chosen.push_back({name, *size, nearest->flops_per_second, false});
  }
  basis.models = std::move(chosen);
}

Plan make_plan(const PlanBasis& basis, double device_hours, const PlanLimits& limits) {
  NF_CHECK(!basis.models.empty() && basis.images_per_epoch > 0);
  double fastest = 0;
  for (const auto& m : basis.models) fastest = std::max(fastest, m.flops_per_second);
  Plan plan;
  plan.device_hours = device_hours;
  check_budget(device_hours, device_hours * 3600 * fastest / basis.largest_compute, limits);

  auto runs = ranked(basis, device_hours, limits);
  const LawBootstrap bootstrap =
      bootstrap_law(basis.points, basis.law, basis.bootstrap, basis.delta);
  const bool usable = bootstrap.convergence.usable();
  if (bootstrap.convergence.doubtful())
    plan.warnings.push_back(fmt::format("bootstrap: only {} of {} samples converged",
                                        bootstrap.convergence.converged,
                                        bootstrap.convergence.samples));
  const double none = std::numeric_limits<double>::quiet_NaN();
  const auto with_interval = [&](PlannedRun run) {
    run.ci95 = usable ? bootstrap.loss(run.size, run.images) : Interval{none, none};
    return run;
  };
  plan.best = with_interval(runs[0]);
  plan.extrapolated_by = std::max(1.0, plan.best.train_flops / basis.largest_compute);
  if (runs.size() > 1) {
    plan.runner_up = with_interval(runs[1]);
    int better = 0;
    for (const auto& law : bootstrap.laws)
      if (law.loss(runs[1].size, runs[1].images) < law.loss(runs[0].size, runs[0].images)) ++better;
    plan.runner_up_better = usable ? better / static_cast<double>(bootstrap.laws.size()) : none;
  }
  const double compute = device_hours * 3600 *
                         std::find_if(basis.models.begin(), basis.models.end(), [&](const auto& m) {
                           return m.name == plan.best.model;
                         })->flops_per_second;
  plan.continuous_size = basis.law.best_size(compute);
  plan.continuous_epochs = compute / plan.continuous_size / basis.images_per_epoch;
  plan.continuous_loss = basis.law.loss(plan.continuous_size, compute / plan.continuous_size);
  plan.continuous_ci95 = usable
                             ? bootstrap.loss(plan.continuous_size, compute / plan.continuous_size)
                             : Interval{none, none};
  plan.half = with_interval(ranked(basis, device_hours / 2, limits)[0]);
  plan.twice = with_interval(ranked(basis, device_hours * 2, limits)[0]);
  if (auto larger = next_larger(basis, plan.best, limits))
    plan.for_transfer = with_interval(*larger);
  if (basis.usd_per_device_hour > 0)
    plan.cost_usd = plan.best.device_hours * basis.usd_per_device_hour;

  if (plan.extrapolated_by > 1)
    plan.warnings.push_back(fmt::format("extrapolated by a factor {:.4g} beyond the largest run",
                                        plan.extrapolated_by));
  if (plan.best.bounded)
    plan.warnings.push_back(
        fmt::format("--max-epochs {} decides: {} would take more epochs; {:.6g} of {:.6g} "
                    "device-hours are used",
                    *limits.max_epochs, plan.best.model, plan.best.device_hours, device_hours));
  if (!basis.rate_note.empty()) plan.warnings.push_back(basis.rate_note);
  for (const auto& m : basis.models)
    if (m.name == plan.best.model && !m.measured)
      plan.warnings.push_back("the speed of " + m.name +
                              " is unmeasured: the nearest measured model's FLOP rate is assumed");
  return plan;
}

Prediction predict_run(const PlanBasis& basis, const std::string& model, double epochs, bool far) {
  PlanBasis one = basis;
  choose_models(one, {model});
  const PlannedModel& m = one.models[0];
  Prediction p;
  p.run.model = m.name;
  p.run.size = m.size;
  p.run.epochs = epochs;
  p.run.images = std::round(epochs * basis.images_per_epoch);
  p.run.train_flops = p.run.images * m.size;
  p.run.device_hours = p.run.train_flops / m.flops_per_second / 3600;
  if (!(epochs > 0)) throw Error(ExitCode::kUsage, "--epochs", "must be positive");
  p.extrapolated_by = std::max(1.0, p.run.train_flops / basis.largest_compute);
  check_distance(p.extrapolated_by, far, "--epochs", fmt::format("{:.6g} epochs", epochs));
  expect(basis, p.run);
  const LawBootstrap bootstrap =
      bootstrap_law(basis.points, basis.law, basis.bootstrap, basis.delta);
  const double none = std::numeric_limits<double>::quiet_NaN();
  p.run.ci95 = p.interval90 = {none, none};
  if (bootstrap.convergence.usable()) {
    p.run.ci95 = bootstrap.loss(p.run.size, p.run.images);
    p.interval90 = predict_interval(bootstrap, log_residuals(basis.points, basis.law), p.run.size,
                                    p.run.images, basis.bootstrap.seed, 10);
  } else {
    p.warnings.push_back("too few bootstrap samples converged: no interval");
  }
  if (p.extrapolated_by > 1)
    p.warnings.push_back(
        fmt::format("extrapolated by a factor {:.4g} beyond the largest run", p.extrapolated_by));
  if (!m.measured) p.warnings.push_back("the speed of " + m.name + " is unmeasured");
  return p;
}

std::optional<double> hours_for_loss(const PlanBasis& basis, double loss,
                                     const PlanLimits& limits) {
  std::optional<double> least;
  for (const auto& model : basis.models) {
    const double left = loss - basis.law.E - basis.law.A * std::pow(model.size, -basis.law.alpha);
    if (!(left > 0)) continue;
    const double images = std::pow(basis.law.B / left, 1 / basis.law.beta);
    if (limits.max_epochs && images > *limits.max_epochs * basis.images_per_epoch) continue;
    const double hours = images * model.size / (3600 * model.flops_per_second);
    if (!least || hours < *least) least = hours;
  }
  return least;
}

}  // namespace nf::analysis

// See fit_json.h.
#include "analysis/fit_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "analysis/accounting.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/version.h"

namespace nf::analysis {
namespace {

using Value = double (*)(const ScalingLaw&);
constexpr std::pair<const char*, Value> kLawValues[] = {
    {"E", [](const ScalingLaw& l) { return l.E; }},
    {"A", [](const ScalingLaw& l) { return l.A; }},
    {"B", [](const ScalingLaw& l) { return l.B; }},
    {"alpha", [](const ScalingLaw& l) { return l.alpha; }},
    {"beta", [](const ScalingLaw& l) { return l.beta; }},
    {"exponent_size", [](const ScalingLaw& l) { return l.exponent_size(); }},
    {"exponent_images", [](const ScalingLaw& l) { return l.exponent_images(); }}};

Json cells_json(const std::vector<Cell>& cells) {
  Json out = Json::array();
  for (const Cell& cell : cells) {
    double spread = 0;
    size_t seeds = 1;
    for (const auto& trial : cell.trials) {
      spread = std::max(spread, trial.seed_spread);
      seeds = std::max(seeds, trial.runs.size());
    }
    Json json = {{"model", cell.model},
                 {"epochs", cell.epochs},
                 {"learning_rate", cell.learning_rate()},
                 {"run", cell.run()},
                 {"loss", cell.loss()},
                 {"bracketed", cell.bracketed},
                 {"refined_log2_lr", cell.log2_rate},
                 {"refined", cell.refined},
                 {"size", cell.size},
                 {"images", cell.images},
                 {"train_flops", cell.train_flops},
                 {"device_hours", cell.device_hours},
                 {"trials", cell.trials.size()}};
    if (seeds > 1) json["seed_spread_ln"] = spread;
    out.push_back(std::move(json));
  }
  return out;
}

Json frontier_law_json(const Study& study) {
  Json out = {{"x", study.frontier.axis()}};
  if (study.frontier_plc)
    out.update(to_json(study.frontier_plc->fit, study.frontier_plc->bootstrap));
  for (const auto& [name, curve] :
       {std::pair("plc", &study.frontier_plc), std::pair("pl", &study.frontier_pl)})
    if (*curve) out[name] = to_json((*curve)->fit, (*curve)->bootstrap);
  return out;
}

Json holdouts_json(const std::vector<Holdout>& holdouts) {
  Json out = Json::array();
  for (const Holdout& h : holdouts) {
    Json intervals = Json::array();
    for (const auto& i : h.interval90) intervals.push_back(to_json(i));
    out.push_back({{"name", h.name},
                   {"hidden", h.runs},
                   {"actual", h.actual},
                   {"predicted", h.predicted},
                   {"interval90", intervals},
                   {"rmsle", h.rmsle},
                   {"fitted_cells", h.fitted_cells}});
  }
  return out;
}

Json rates_json(const Study& study) {
  Json out = Json::array();
  for (const auto& r : study.rates)
    out.push_back({{"model", r.model},
                   {"device", r.device},
                   {"size", r.size},
                   {"images_per_second", r.images_per_second},
                   {"flops_per_second", r.flops_per_second},
                   {"runs", r.runs}});
  return out;
}

Json trend_json(const RateTrend& t) {
  return {{"coefficients", t.coefficients},
          {"cap_log2", t.cap_log2},
          {"cells_used", t.cells_used},
          {"rms_log2", t.rms_log2},
          {"smallest_size", t.smallest_size}};
}

Json run_json(const PlannedRun& run) {
  return {{"model", run.model},
          {"epochs", run.epochs},
          {"learning_rate", run.learning_rate},
          {"learning_rate_grid", run.learning_rate_grid},
          {"loss", run.loss},
          {"lo", run.ci95.lo},
          {"hi", run.ci95.hi},
          {"images", run.images},
          {"train_flops", run.train_flops},
          {"device_hours", run.device_hours}};
}

}  // namespace

Json to_json(const Interval& interval) { return Json::array({interval.lo, interval.hi}); }

Json to_json(const CurveFit& fit, const CurveBootstrap& bootstrap) {
  Json parameters, ci95;
  const NamedValues named = fit.named();
  const auto intervals = bootstrap.parameters();
  for (size_t i = 0; i < named.size(); ++i) {
    parameters[named[i].first] = named[i].second;
    ci95[named[i].first] = intervals.empty() ? Json() : to_json(intervals[i]);
  }
  return {{"form", form_name(fit.form)},
          {"objective", fit.objective},
          {"parameters", parameters},
          {"ci95", ci95}};
}

Json to_json(const Regions& r) {
  return {{"x_lo", r.x_lo},
          {"x_hi", r.x_hi},
          {"x_at_max", r.x_at_max},
          {"max_slope", r.max_slope},
          {"points", r.points}};
}

Json to_json(const ScalingLaw& law, const LawBootstrap& bootstrap) {
  Json parameters, ci95;
  for (const auto& [name, value] : kLawValues) {
    if (!std::string_view(name).starts_with("exponent")) parameters[name] = value(law);
    ci95[name] = bootstrap.convergence.usable() ? to_json(bootstrap.of(value)) : Json();
  }
  return {{"parameters", parameters},
          {"objective", law.objective},
          {"exponent_size", law.exponent_size()},
          {"exponent_images", law.exponent_images()},
          {"ci95", ci95}};
}

Json to_json(const Study& study) {
  Json excluded = Json::object();
  for (const auto& [reason, runs] : study.selection.excluded) excluded[reason] = runs;
  Json frontier = Json::array();
  for (const Run& run : study.frontier.runs) frontier.push_back(run.run);
  Json out = {
      {"version", kVersion},
      {"input",
       {{"rows", study.rows},
        {"used", study.selection.used.size()},
        {"diverged", study.selection.diverged.size()},
        {"excluded", excluded},
        {"hash", study.input_hash}}},
      {"cells", cells_json(study.cells)},
      {"not_bracketed", study.not_bracketed},
      {"frontier", frontier},
      {"frontier_law", frontier_law_json(study)},
      {"law", to_json(study.law, study.law_bootstrap)},
      {"lr_trend", trend_json(study.trend)},
      {"holdout", holdouts_json(study.holdouts)},
      {"rates", rates_json(study)},
      {"images_per_epoch", study.images_per_epoch},
      {"largest_train_flops", study.largest_compute},
      {"usd_per_device_hour", study.usd_per_device_hour},
      {"total_device_hours", study.total_device_hours},
      {"total_cost_usd", study.total_cost_usd},
      {"lr_grid", {{"anchor", study.options.grid.anchor}, {"factor", study.options.grid.factor}}},
      {"delta", study.options.delta},
      {"bootstrap_samples", study.options.bootstrap.samples},
      {"seed", study.options.bootstrap.seed},
      {"warnings", study.warnings}};
  if (study.reuse_law)
    out["reuse"] = {{"R", study.reuse_law->reuse},
                    {"objective", study.reuse_law->objective},
                    {"holdout_rmsle", study.reuse_rmsle},
                    {"holdout_rmsle_without", study.plain_rmsle},
                    {"lowers_holdout_error", study.reuse_rmsle < study.plain_rmsle}};
  return out;
}

Json to_json(const Prediction& p) {
  Json out = run_json(p.run);
  out["lo90"] = p.interval90.lo;
  out["hi90"] = p.interval90.hi;
  out["extrapolated_by"] = p.extrapolated_by;
  out["warnings"] = p.warnings;
  return out;
}

Json to_json(const Plan& plan) {
  Json out = run_json(plan.best);
  out["budget_device_hours"] = plan.device_hours;
  out["cost_usd"] = plan.cost_usd ? Json(*plan.cost_usd) : Json();
  out["extrapolated_by"] = plan.extrapolated_by;
  out["continuous"] = {{"size", plan.continuous_size},
                       {"epochs", plan.continuous_epochs},
                       {"loss", plan.continuous_loss},
                       {"lo", plan.continuous_ci95.lo},
                       {"hi", plan.continuous_ci95.hi}};
  if (plan.runner_up) {
    out["runner_up"] = run_json(*plan.runner_up);
    out["runner_up"]["difference"] = plan.runner_up->loss - plan.best.loss;
    out["runner_up"]["probability_better"] = plan.runner_up_better;
  } else {
    out["runner_up"] = Json();
  }
  out["half_budget"] = plan.half ? run_json(*plan.half) : Json();
  out["double_budget"] = plan.twice ? run_json(*plan.twice) : Json();
  out["for_fine_tuning"] = plan.for_transfer ? run_json(*plan.for_transfer) : Json();
  out["warnings"] = plan.warnings;
  return out;
}

namespace {

// The device whose rates a plan uses; other devices through a conversion of hours.
void choose_rates(const Json& fit, const std::string& name, const std::string& wanted,
                  double peak_tflops, PlanBasis& basis) {
  std::set<std::string> devices;
  for (const auto& rate : fit.at("rates")) devices.insert(rate.at("device").get<std::string>());
  if (devices.empty())
    throw Error(ExitCode::kData, name, "no run of the table has device_hours: speeds are unknown",
                "give device_hours in results.csv");
  const Device given{wanted, peak_tflops, 1};
  const Device* target = peak_tflops > 0 && !wanted.empty() ? &given : find_device(wanted);
  std::string source = *devices.begin();
  double speed_up = 1;
  if (wanted.empty() && devices.size() > 1)
    throw Error(ExitCode::kUsage, "--device",
                fmt::format("the table has several devices: {}", fmt::join(devices, ", ")),
                "say for which one to plan");
  if (!wanted.empty()) {
    const auto same = std::find_if(devices.begin(), devices.end(), [&](const auto& d) {
      return d == wanted || (target && find_device(d) == target);
    });
    if (same != devices.end()) {
      source = *same;
    } else {
      const Device* from = find_device(source);
      if (!target || !from)
        throw Error(
            ExitCode::kUsage, "--device",
            fmt::format("unknown device '{}'{}", wanted,
                        target ? "; the table does not say which device made its runs" : ""),
            fmt::format(
                "measured: {}; convertible between known ones: tpu-v3, tpu-v4, "
                "a100, h100, h200; for others give --peak-tflops",
                source.empty() ? "(unnamed)" : fmt::format("{}", fmt::join(devices, ", "))));
      const Conversion conversion = convert_hours(*from, *target);
      speed_up = 1 / conversion.hours_per_hour;
      basis.rate_note =
          fmt::format("speeds on {} come from {} by {}", target->name, from->name,
                      conversion.measured ? "a measured ratio" : "the peak ratio, unmeasured");
      basis.usd_per_device_hour = 0;
    }
    if (target && basis.usd_per_device_hour == 0)
      if (const auto price = find_price(shipped_prices(), target->name))
        basis.usd_per_device_hour = cost_usd(1, *target, *price);
  }
  basis.device = wanted.empty() ? source : wanted;
  for (const auto& rate : fit.at("rates"))
    if (rate.at("device") == source)
      basis.models.push_back({rate.at("model"), rate.at("size"),
                              rate.at("flops_per_second").get<double>() * speed_up, true});
}

}  // namespace

PlanBasis read_plan_basis(const Json& fit, const std::string& name, const std::string& device,
                          double peak_tflops) {
  PlanBasis basis;
  try {
    const auto& law = fit.at("law").at("parameters");
    basis.law.E = law.at("E");
    basis.law.A = law.at("A");
    basis.law.B = law.at("B");
    basis.law.alpha = law.at("alpha");
    basis.law.beta = law.at("beta");
    basis.law.objective = fit.at("law").at("objective");
    for (const auto& cell : fit.at("cells"))
      basis.points.push_back({cell.at("size"), cell.at("images"), cell.at("loss")});
    const auto& trend = fit.at("lr_trend");
    basis.trend.coefficients = trend.at("coefficients").get<std::array<double, 4>>();
    basis.trend.cap_log2 = trend.at("cap_log2");
    basis.trend.smallest_size = trend.at("smallest_size");
    basis.trend.cells_used = trend.at("cells_used");
    basis.grid.anchor = fit.at("lr_grid").at("anchor");
    basis.grid.factor = fit.at("lr_grid").at("factor");
    basis.delta = fit.at("delta");
    basis.images_per_epoch = fit.at("images_per_epoch");
    basis.largest_compute = fit.at("largest_train_flops");
    basis.usd_per_device_hour = fit.at("usd_per_device_hour");
    basis.bootstrap.samples = fit.at("bootstrap_samples");
    basis.bootstrap.seed = fit.at("seed");
    choose_rates(fit, name, device, peak_tflops, basis);
  } catch (const Json::exception& e) {
    throw Error(ExitCode::kData, name, std::string("not a fit.json of nf-fit: ") + e.what(),
                "make one with nf-fit --input results.csv --output REPORT_DIR");
  }
  return basis;
}

PlanBasis load_plan_basis(const std::string& fit_file, const std::string& device,
                          double peak_tflops) {
  const Json fit = Json::parse(read_file(fit_file), nullptr, false);
  if (fit.is_discarded())
    throw Error(ExitCode::kData, fit_file, "not valid JSON",
                "make one with nf-fit --input results.csv --output REPORT_DIR");
  return read_plan_basis(fit, fit_file, device, peak_tflops);
}

}  // namespace nf::analysis

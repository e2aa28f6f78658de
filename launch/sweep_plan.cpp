// See sweep_plan.h.
#include "launch/sweep_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "analysis/statistics.h"
#include "models/nfnet/cost.h"

namespace nf::launch {
namespace {

struct ModelRate {
  double size = 0, flops_per_second = 0;
};

// Median FLOP rate of a device by model.
std::map<std::string, ModelRate> measured_rates(const std::vector<analysis::Run>& runs) {
  std::map<std::string, std::vector<double>> rates;
  std::map<std::string, ModelRate> out;
  for (const auto& run : runs) {
    if (run.status != analysis::RunStatus::kDone || !(run.device_hours > 0)) continue;
    rates[run.model].push_back(run.train_flops / (run.device_hours * 3600));
    out[run.model].size = run.train_flops_per_image;
  }
  for (auto& [model, rate] : out) rate.flops_per_second = analysis::median(rates[model]);
  return out;
}

// FLOP a second of one device for a model, and whether it was measured with this model.
std::pair<double, bool> rate_for(const std::map<std::string, ModelRate>& rates,
                                 const PlannedCell& cell, double assumed) {
  if (const auto own = rates.find(cell.model); own != rates.end())
    return {own->second.flops_per_second, true};
  double least = INFINITY, rate = assumed;
  for (const auto& [model, r] : rates) {
    const double distance = std::fabs(std::log(r.size / cell.flops_per_image));
    if (distance < least) {
      least = distance;
      rate = r.flops_per_second;
    }
  }
  return {rate, false};
}

int expected_runs(const TuningRules& rules) {
  const int range = rules.k_high - rules.k_low + 1;
  if (rules.policy == Policy::kFull) return range;
  return std::min(range, rules.policy == Policy::kTwoTrial ? 2 : 3);
}

struct Totals {
  double flops = 0, hours = 0, usd = 0;
};
Totals totals_of(const SweepPlan& plan) {
  Totals t;
  for (const auto& cell : plan.cells) {
    t.flops += plan.runs_per_cell * cell.train_flops;
    t.hours += plan.runs_per_cell * cell.device_hours;
    t.usd += plan.runs_per_cell * cell.cost_usd;
  }
  return t;
}

Json cell_json(const PlannedCell& cell) {
  return {{"model", cell.model},
          {"params", cell.params},
          {"epochs", cell.epochs},
          {"images", cell.images},
          {"train_flops_per_image", cell.flops_per_image},
          {"train_flops", cell.train_flops},
          {"device_hours", cell.device_hours > 0 ? Json(cell.device_hours) : Json()},
          {"cost_usd", cell.cost_usd > 0 ? Json(cell.cost_usd) : Json()},
          {"rate", cell.measured ? "measured" : "unmeasured"}};
}

}  // namespace

std::vector<TuningCell> SweepPlan::tuning() const {
  std::vector<TuningCell> out;
  for (const auto& cell : cells) out.push_back(cell.tuning());
  return out;
}

SweepPlan plan_sweep(const SweepConfig& config, const std::vector<analysis::Run>& measured) {
  SweepPlan plan;
  plan.runs_per_cell = expected_runs(config.rules()) * static_cast<int>(config.seeds.size());
  const analysis::Device device = config.planned_device();
  const analysis::Price price = config.price();
  const auto rates = measured_rates(measured);
  const double assumed = device.peak_tflops * 1e12 * config.device.utilization;
  for (const auto& name : config.models) {
    auto spec = model::nfnet_spec(name);
    spec.classes = config.data.classes;
    PlannedCell cell;
    cell.model = name;
    cell.params = model::model_cost(spec).parameters;
    cell.flops_per_image =
        analysis::train_flops_per_image(model::forward_macs(spec, config.image_size)) *
        (1 + config.ascent_share);
    for (const double epochs : config.epochs) {
      cell.epochs = epochs;
      cell.images = std::round(epochs * static_cast<double>(config.data.images_per_epoch));
      cell.train_flops = cell.flops_per_image * cell.images;
      double rate = 0;
      std::tie(rate, cell.measured) = rate_for(rates, cell, assumed);
      cell.device_hours = rate > 0 ? cell.train_flops / rate / 3600 : 0;
      cell.cost_usd = analysis::cost_usd(cell.device_hours, device, price);
      const SweepLimit& limit = config.limit;
      const bool above = (limit.device_hours > 0 && cell.device_hours > limit.device_hours) ||
                         (limit.train_flops > 0 && cell.train_flops > limit.train_flops);
      (above ? plan.too_large : plan.cells).push_back(cell);
    }
  }
  for (auto* cells : {&plan.cells, &plan.too_large})
    std::sort(cells->begin(), cells->end(), [](const PlannedCell& a, const PlannedCell& b) {
      return std::tie(a.train_flops, a.flops_per_image, a.model) <
             std::tie(b.train_flops, b.flops_per_image, b.model);
    });
  return plan;
}

std::string trial_name(const PlannedCell& cell, int k, int64_t seed) {
  return fmt::format("{}_e{}_k{}_s{}", cell.model, cell.epochs, k, seed);
}

Json to_json(const SweepPlan& plan, const SweepConfig& config) {
  const Totals t = totals_of(plan);
  const TuningRules rules = config.rules();
  Json cells = Json::array(), left_out = Json::array();
  for (const auto& cell : plan.cells) cells.push_back(cell_json(cell));
  for (const auto& cell : plan.too_large) left_out.push_back(cell_json(cell));
  return {{"policy", config.lr.policy},
          {"learning_rate_min", rules.grid.rate(rules.k_low)},
          {"learning_rate_max", rules.grid.rate(rules.k_high)},
          {"device", config.device.name},
          {"runs_per_cell", plan.runs_per_cell},
          {"runs", plan.runs_per_cell * static_cast<int>(plan.cells.size())},
          {"train_flops", t.flops},
          {"device_hours", t.hours > 0 ? Json(t.hours) : Json()},
          {"cost_usd", t.usd > 0 ? Json(t.usd) : Json()},
          {"cells", std::move(cells)},
          {"above_limit", std::move(left_out)}};
}

std::string plan_text(const SweepPlan& plan, const SweepConfig& config) {
  std::string out =
      fmt::format("{:<16} {:>7} {:>5} {:>12} {:>12} {:>14} {:>12}  rate\n", "model", "epochs",
                  "runs", "images/run", "FLOP/run", "device-h/run", "USD/run");
  const auto number = [](double v, int digits) {
    return v > 0 ? fmt::format("{:.{}f}", v, digits) : std::string("unknown");
  };
  for (const auto& c : plan.cells)
    out +=
        fmt::format("{:<16} {:>7} {:>5} {:>12.5g} {:>12.4g} {:>14} {:>12}  {}\n", c.model, c.epochs,
                    plan.runs_per_cell, c.images, c.train_flops, number(c.device_hours, 4),
                    number(c.cost_usd, 2), c.measured ? "measured" : "unmeasured");
  const Totals t = totals_of(plan);
  out += fmt::format(
      "{} cells, policy {}: {} runs expected, {:.5g} FLOP, {} {} device-hours, {} USD\n",
      plan.cells.size(), config.lr.policy, plan.runs_per_cell * static_cast<int>(plan.cells.size()),
      t.flops, number(t.hours, 2), config.device.name, number(t.usd, 2));
  for (const auto& c : plan.too_large)
    out += fmt::format("not planned: {} at {} epochs, {} device-hours and {:.4g} FLOP a run\n",
                       c.model, c.epochs, number(c.device_hours, 2), c.train_flops);
  return out;
}

}  // namespace nf::launch

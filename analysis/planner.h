// Which model, how many epochs, which learning rate for a budget, and what loss to expect; or the
// least budget for a loss. Works from what fit.json holds.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "analysis/cells.h"
#include "analysis/lr_trend.h"
#include "analysis/scaling_law.h"

namespace nf::analysis {

inline constexpr double kFarthest = 100;  // beyond so many times the largest compute: only if asked

struct PlannedModel {
  std::string name;
  double size = 0;              // train FLOPs an image
  double flops_per_second = 0;  // of one device
  bool measured = true;         // the rate
};

// What a plan is made from.
struct PlanBasis {
  std::vector<PlannedModel> models;
  std::vector<LawPoint> points;
  ScalingLaw law;
  RateTrend trend;
  RateGrid grid;
  double delta = kDefaultDelta;
  double images_per_epoch = 0, largest_compute = 0;
  double usd_per_device_hour = 0;  // 0: unknown
  std::string device, rate_note;
  BootstrapOptions bootstrap;
};

struct PlannedRun {
  std::string model;
  double size = 0, epochs = 0, images = 0, device_hours = 0, train_flops = 0;
  double learning_rate = 0, learning_rate_grid = 0;
  double loss = 0;
  Interval ci95{};
  bool bounded = false;  // --max-epochs decided
};

struct Plan {
  double device_hours = 0, extrapolated_by = 1;  // 1: inside the data
  PlannedRun best;
  std::optional<PlannedRun> runner_up;
  double runner_up_better = 0;  // its probability, from the bootstrap
  double continuous_size = 0, continuous_epochs = 0, continuous_loss = 0;
  Interval continuous_ci95{};
  std::optional<PlannedRun> half, twice;   // the same for other budgets
  std::optional<PlannedRun> for_transfer;  // the next larger model, fewer epochs
  std::optional<double> cost_usd;
  std::vector<std::string> warnings;
};

struct PlanLimits {
  std::optional<double> max_epochs;
  bool far = false;
};

// Throws Error(kUsage) for a budget that is not positive or too far from the data.
Plan make_plan(const PlanBasis& basis, double device_hours, const PlanLimits& limits);

// Leaves the named models in the basis: NAME, or NAME=TRAIN_FLOPS_PER_IMAGE for one that was never
// measured, which gets the FLOP rate of the nearest. Throws Error(kUsage) for an unknown name.
void choose_models(PlanBasis& basis, const std::vector<std::string>& wanted);

// One run that has not been made.
struct Prediction {
  PlannedRun run;         // its ci95: of the law
  Interval interval90{};  // of the run's own loss: the law's, with the scatter of runs around it
  double extrapolated_by = 1;
  std::vector<std::string> warnings;
};
// Throws Error(kUsage) for an unknown model, epochs that are not positive or too far from the data.
Prediction predict_run(const PlanBasis& basis, const std::string& model, double epochs, bool far);

// The least device-hours for a loss; nothing when no model of the basis reaches it.
std::optional<double> hours_for_loss(const PlanBasis& basis, double loss, const PlanLimits& limits);

}  // namespace nf::analysis

// Everything that is computed from a sweep's table: what was used, cells, frontier, laws with
// intervals, learning-rate trend, hidden points, rates. fit_json.h writes it, report.h shows it,
// planner.h extrapolates it.
#pragma once

#include <optional>

#include "analysis/cells.h"
#include "analysis/frontier.h"
#include "analysis/lr_trend.h"
#include "analysis/scaling_law.h"

namespace nf::analysis {

struct StudyOptions {
  double allow_missed = kAllowedMissed;
  double delta = kDefaultDelta;
  RateGrid grid;
  double rate_cap = kRateCap;
  bool reuse = false;
  bool flops = false;  // compute counts in FLOPs even where device-hours could
  BootstrapOptions bootstrap;
};

struct FittedCurve {
  CurveFit fit;
  CurveBootstrap bootstrap;
};

// Cells that were hidden, and what the law of the others says about them.
struct Holdout {
  std::string name;  // "three most expensive frontier cells"
  std::vector<std::string> runs;
  std::vector<double> compute, actual, predicted;
  std::vector<Interval> interval90;
  double rmsle = 0;
  int fitted_cells = 0;
};

// Speed of one model on one device, the median over its finished runs.
struct MeasuredRate {
  std::string model, device;
  double size = 0;                                     // train FLOPs an image
  double images_per_second = 0, flops_per_second = 0;  // of one device
  int runs = 0;
};

struct Study {
  StudyOptions options;
  std::string table_name, input_hash;
  int64_t rows = 0;
  RunSelection selection;
  std::vector<Cell> cells;
  Frontier frontier;
  std::optional<FittedCurve> frontier_pl, frontier_plc;
  std::vector<LawPoint> points;  // of the cells
  ScalingLaw law;
  LawBootstrap law_bootstrap;
  std::optional<ScalingLaw> reuse_law;
  double reuse_rmsle = 0, plain_rmsle = 0;  // on the hidden cells, with --reuse
  RateTrend trend;
  std::vector<Holdout> holdouts;
  std::vector<MeasuredRate> rates;
  double images_per_epoch = 0;
  double largest_compute = 0;                         // train FLOPs of the largest cell
  double usd_per_device_hour = 0;                     // median; 0: no costs in the table
  double total_device_hours = 0, total_cost_usd = 0;  // of all rows that tell
  std::vector<std::string> not_bracketed;             // "model at E epochs"
  std::vector<std::string> warnings;
};

// Throws Error(kData) when there is too little to fit.
Study run_study(const RunTable& table, const StudyOptions& options);

std::string cell_name(const Cell& cell);  // "nfnet_f0 at 0.25 epochs"

}  // namespace nf::analysis

// The runs of a sweep before they are made: its cells in order of train FLOPs, and what each costs.
#pragma once

#include "analysis/run_table.h"
#include "core/jsonl.h"
#include "launch/sweep_config.h"

namespace nf::launch {

struct PlannedCell {
  std::string model;
  int64_t params = 0;
  double epochs = 0, images = 0, flops_per_image = 0;
  double train_flops = 0;   // of one run
  double device_hours = 0;  // of one run; 0: no rate is known
  double cost_usd = 0;
  bool measured = false;  // the rate
  TuningCell tuning() const { return {flops_per_image, epochs}; }
};

struct SweepPlan {
  std::vector<PlannedCell> cells;      // in order of train FLOPs
  std::vector<PlannedCell> too_large;  // above limit.device_hours
  int runs_per_cell = 0;               // expected: bracket takes 3 on average, at most 8
  std::vector<TuningCell> tuning() const;
};

// `measured`: finished runs (may be empty) whose rates replace the device's assumed one: the
// model's median where it has runs, else the FLOP rate of the nearest measured model.
SweepPlan plan_sweep(const SweepConfig& config, const std::vector<analysis::Run>& measured);

// nfnet_f0_e0.25_k-1_s0: one trial with one seed.
std::string trial_name(const PlannedCell& cell, int k, int64_t seed);

Json to_json(const SweepPlan& plan, const SweepConfig& config);
std::string plan_text(const SweepPlan& plan, const SweepConfig& config);

}  // namespace nf::launch

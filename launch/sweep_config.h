// SWEEP.toml: the grid of a sweep, how its learning rates are chosen, where it trains and what that
// costs. Strict like every config: unknown keys and all other faults at once. What every trial has
// in common is an nf-train config (`config`) with overrides (`set`); the grid's coordinates are set
// by the sweep and may not stand in `set`.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "analysis/accounting.h"
#include "core/options.h"
#include "launch/controller.h"

namespace nf::launch {

struct RateOptions {
  double anchor = 1.6, factor = 2;
  double min = 0, max = 0;  // 0: anchor x factor^-6, anchor x factor^2
  std::string policy = "two_trial";
  void visit(Fields& f);
};
struct SweepData {
  std::string path, split = "train";
  int64_t images_per_epoch = 0;  // 0: the samples of the split
  int64_t classes = 0;           // 0: those of the data set
  void visit(Fields& f);
};
struct SweepLimit {
  double device_hours = 0, train_flops = 0;
  void visit(Fields& f);
};
struct SweepDevice {
  std::string name = "cpu";
  double peak_tflops = 0, utilization = 0.35;
  std::string price_kind = "preemptible";
  void visit(Fields& f);
};
struct SweepRun {
  int64_t ranks = 1, parallel = 1, attempts = 3;
  void visit(Fields& f);
};
struct DevicePrice {
  double usd_per_hour = 0;
  std::string unit = "device", kind = "preemptible", date;
  void visit(Fields& f);
};

struct SweepConfig {
  std::vector<std::string> models;
  std::vector<double> epochs = {0.25, 0.5, 1, 2, 4, 8};
  std::vector<int64_t> seeds = {0};
  int64_t batch = 4096, image_size = 224;
  std::string config;  // of nf-train; a relative path counts from SWEEP.toml's folder
  std::vector<std::string> set;
  SweepData data;
  RateOptions lr;
  SweepLimit limit;
  SweepDevice device;
  SweepRun run;
  std::vector<std::pair<std::string, DevicePrice>> prices;  // by device, every one known and "cpu"
  double ascent_share = 0;  // of each batch, SAM's first pass (sam.* of `config` and `set`)

  SweepConfig();
  Fields fields();  // of this object: keep it alive as long as the list
  TuningRules rules() const;
  analysis::Device planned_device() const;
  analysis::Price price() const;  // of an hour on the device; 0 where none is known
};

// Throws Error(kUsage) with everything that is wrong. Images and classes come from the data set
// where the file does not tell them: Error(kData) when there is none.
SweepConfig load_sweep_config(const std::filesystem::path& file,
                              const std::vector<std::string>& overrides);

}  // namespace nf::launch

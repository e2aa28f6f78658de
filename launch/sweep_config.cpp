// See sweep_config.h.
#include "launch/sweep_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/jsonl.h"
#include "models/nfnet/spec.h"

namespace nf::launch {

namespace fs = std::filesystem;

void RateOptions::visit(Fields& f) {
  f("anchor", anchor, "a learning rate of the grid; the first cell starts here", {.min = 1e-12});
  f("factor", factor, "between neighbouring learning rates", {.min = 1.01});
  f("min", min, "smallest learning rate; 0: anchor x factor^-6",
    {.affects_result = false, .min = 0});
  f("max", max, "largest learning rate; 0: anchor x factor^2", {.affects_result = false, .min = 0});
  f("policy", policy, "how a cell's learning rate is found",
    {.affects_result = false, .one_of = {"full", "two_trial", "bracket"}});
}
void SweepData::visit(Fields& f) {
  f("path", path,
    "data set folder, given to nf-train as data.path; relative to where nf-sweep runs",
    {.affects_result = false});
  f("split", split, "split to train on");
  f("images_per_epoch", images_per_epoch, "0: the samples of the split", {.min = 0});
  f("classes", classes, "0: those of the data set", {.min = 0});
}
void SweepLimit::visit(Fields& f) {
  f("device_hours", device_hours, "cells whose runs take longer are not planned; 0: no limit",
    {.affects_result = false, .min = 0});
  f("train_flops", train_flops, "cells whose runs cost more FLOPs are not planned; 0: no limit",
    {.affects_result = false, .min = 0});
}
void SweepDevice::visit(Fields& f) {
  f("name", name, "what the device-hours are hours of: cpu (a rank) or a known accelerator",
    {.affects_result = false});
  f("peak_tflops", peak_tflops, "of one device; 0: the known peak",
    {.affects_result = false, .min = 0});
  f("utilization", utilization, "of the peak, until a rate was measured",
    {.affects_result = false, .min = 1e-6, .max = 1});
  f("price_kind", price_kind, "which shipped price counts",
    {.affects_result = false, .one_of = {"preemptible", "on-demand"}});
}
void SweepRun::visit(Fields& f) {
  f("ranks", ranks, "processes (devices) of one trial", {.affects_result = false, .min = 1});
  f("parallel", parallel, "trials side by side", {.affects_result = false, .min = 1});
  f("attempts", attempts, "how often a trial may fail before it is given up",
    {.affects_result = false, .min = 1});
}
void DevicePrice::visit(Fields& f) {
  f("usd_per_hour", usd_per_hour, "0: the shipped price", {.affects_result = false, .min = 0});
  f("unit", unit, "what an hour is paid for",
    {.affects_result = false, .one_of = {"chip", "device"}});
  f("kind", kind, "of the price",
    {.affects_result = false, .one_of = {"preemptible", "on-demand"}});
  f("date", date, "of the price", {.affects_result = false});
}

SweepConfig::SweepConfig() {
  prices.push_back({"cpu", {}});
  for (const auto& known : analysis::known_devices())
    prices.push_back({std::string(known.name), {}});
}

Fields SweepConfig::fields() {
  Fields f;
  f("models", models, "names of nets", {.affects_result = false});
  f("epochs", epochs, "epoch budgets", {.affects_result = false});
  f("seeds", seeds, "each trial is run with every one of them", {.affects_result = false});
  f("batch", batch, "images a step", {.min = 1});
  f("image_size", image_size, "pixels", {.min = 1});
  f("config", config, "nf-train config that all trials share", {.affects_result = false});
  f("set", set, "key=value overrides that all trials share");
  f.section("data", data);
  f.section("lr", lr);
  f.section("limit", limit);
  f.section("device", device);
  f.section("run", run);
  for (auto& [name, price] : prices) f.section("price." + name, price);
  return f;
}

TuningRules SweepConfig::rules() const {
  TuningRules rules;
  rules.policy = parse_policy(lr.policy);
  rules.grid = {lr.anchor, lr.factor};
  set_range(rules, lr.min > 0 ? lr.min : rules.grid.rate(-6),
            lr.max > 0 ? lr.max : rules.grid.rate(2));
  return rules;
}

analysis::Device SweepConfig::planned_device() const {
  analysis::Device planned{"cpu", 0, 1};
  if (const auto* known = analysis::find_device(device.name)) planned = *known;
  if (device.peak_tflops > 0) planned.peak_tflops = device.peak_tflops;
  return planned;
}

analysis::Price SweepConfig::price() const {
  const std::string name(planned_device().name);
  for (const auto& [priced, p] : prices)
    if (priced == name && p.usd_per_hour > 0)
      return {name, p.usd_per_hour, p.unit == "chip", p.kind, p.date};
  if (const auto shipped =
          analysis::find_price(analysis::shipped_prices(), name, device.price_kind))
    return *shipped;
  return {name, 0, false, "", ""};
}

namespace {

// Everything that spans keys or needs knowledge of nets and devices; one line a fault.
std::vector<std::string> faults_of(const SweepConfig& c) {
  std::vector<std::string> faults;
  const auto known = model::nfnet_names();
  if (c.models.empty()) faults.push_back("models: name at least one net");
  for (const auto& name : c.models)
    if (std::find(known.begin(), known.end(), name) == known.end())
      faults.push_back(
          fmt::format("models: '{}' is not known; did you mean '{}'?", name, nearest(name, known)));
  if (std::set(c.models.begin(), c.models.end()).size() != c.models.size())
    faults.push_back("models: a name stands there twice");
  if (c.epochs.empty()) faults.push_back("epochs: name at least one budget");
  for (const double e : c.epochs)
    if (!(e > 0) || !std::isfinite(e)) faults.push_back(fmt::format("epochs: {} is no budget", e));
  if (std::set(c.epochs.begin(), c.epochs.end()).size() != c.epochs.size())
    faults.push_back("epochs: a budget stands there twice");
  if (c.seeds.empty()) faults.push_back("seeds: name at least one");
  if (std::set(c.seeds.begin(), c.seeds.end()).size() != c.seeds.size())
    faults.push_back("seeds: a seed stands there twice");
  for (const auto& text : c.set) {
    const std::string key = text.substr(0, text.find('='));
    if (key == text) faults.push_back("set: '" + text + "' is not key=value");
    for (const char* taken : {"model.name", "schedule.epochs", "optimizer.learning_rate",
                              "run.seed", "batch.size", "data.image_size", "data.path"})
      if (key == taken)
        faults.push_back("set: " + key + " is the sweep's own; use its key in this file");
  }
  if (c.device.name != "cpu" && !analysis::find_device(c.device.name))
    faults.push_back("device.name: '" + c.device.name +
                     "' is not known: cpu, tpu-v3, tpu-v4, a100, h100 or h200");
  try {
    c.rules();
  } catch (const Error& e) {
    faults.push_back(std::string("lr: ") + e.what());
  }
  return faults;
}

void fill_from_dataset(SweepConfig& c, const std::string& file) {
  if (c.data.images_per_epoch > 0 && c.data.classes > 0) return;
  const fs::path index = fs::path(c.data.path) / "dataset.json";
  if (c.data.path.empty() || !fs::exists(index))
    throw Error(ExitCode::kData, file,
                "no data set at data.path '" + c.data.path +
                    "' to take data.images_per_epoch and data.classes from",
                "pack one with nf-pack, set data.path=..., or give both keys");
  const Json json = Json::parse(read_file(index), nullptr, false);
  const Json::json_pointer samples("/splits/" + c.data.split + "/samples");
  if (!json.is_object() || !json.contains("classes") || !json.contains(samples))
    throw Error(ExitCode::kData, index.string(), "has no split '" + c.data.split + "'",
                "see data.split");
  if (c.data.images_per_epoch == 0) c.data.images_per_epoch = json.at(samples).get<int64_t>();
  if (c.data.classes == 0) c.data.classes = static_cast<int64_t>(json.at("classes").size());
}

// What SAM adds to the FLOPs of a step, as nf-train counts it; every other key of its config is its
// own business.
double ascent_share(const SweepConfig& c) {
  double rho = 0, fraction = 0.2;  // nf-train's defaults
  Fields fields;
  fields("sam.rho", rho, "");
  fields("sam.fraction", fraction, "");
  if (c.config.empty())
    parse_config_text("", "set", c.set, fields, Strictness::kKnownKeys);
  else
    parse_config(c.config, c.set, fields, Strictness::kKnownKeys);
  return rho > 0 ? fraction : 0;
}

}  // namespace

SweepConfig load_sweep_config(const fs::path& file, const std::vector<std::string>& overrides) {
  SweepConfig config;
  Fields fields = config.fields();
  parse_config(file, overrides, fields);
  const auto faults = faults_of(config);
  if (!faults.empty()) {
    std::string text = faults[0];
    for (size_t i = 1; i < faults.size(); ++i) text.append("\n  ").append(faults[i]);
    throw Error(ExitCode::kUsage, file.string(), text, "see nf-sweep plan --help-config");
  }
  fill_from_dataset(config, file.string());
  if (!config.config.empty() && fs::path(config.config).is_relative())
    config.config = (file.parent_path() / config.config).lexically_normal().string();
  config.ascent_share = ascent_share(config);
  return config;
}

}  // namespace nf::launch

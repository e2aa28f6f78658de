// A run small enough for a test: a tiny NFNet on 32-pixel shapes, every key that matters set away
// from its default.
#pragma once

#include <string>
#include <vector>

#include "tests/support/process.h"
#include "trainer/run_config.h"

namespace nf::test {

inline std::vector<std::string> tiny_overrides(const std::string& dataset) {
  return {"data.path=" + dataset,
          "data.image_size=32",
          "data.crop=random_padded",
          "model.name=nfnet_pico",
          "model.depths=[1,1,1,1]",
          "model.widths=[32,32,64,64]",
          "model.dropout=0.1",
          "model.stochastic_depth=0.2",
          "batch.size=48",
          "batch.micro_batches=8",
          "schedule.epochs=1",
          "schedule.warmup_epochs=0.2",
          "optimizer.learning_rate=0.1",
          "optimizer.weight_decay=1e-4",
          "loss.label_smoothing=0.1",
          "ema.decay=0.9",
          "run.seed=11",
          "checkpoint.every_steps=4",
          "log.tensorboard=false"};
}

inline train::RunConfig tiny_config(const std::string& dataset,
                                    const std::vector<std::string>& more = {}) {
  train::RunConfig config;
  Fields fields = config.fields();
  auto overrides = tiny_overrides(dataset);
  overrides.insert(overrides.end(), more.begin(), more.end());
  parse_config_text("", "tiny", overrides, fields);
  train::check_run_config(config);
  return config;
}

inline std::vector<std::string> nf_train(const std::string& config_file, const std::string& dataset,
                                         const std::string& output,
                                         const std::vector<std::string>& more = {}) {
  std::vector<std::string> argv = {program("nf-train").string(), "--config", config_file,
                                   "--output", output};
  auto overrides = tiny_overrides(dataset);
  overrides.insert(overrides.end(), more.begin(), more.end());
  for (const auto& o : overrides) {
    argv.push_back("--set");
    argv.push_back(o);
  }
  return argv;
}

// The folder that checkpoints/latest names.
inline std::filesystem::path latest(const std::filesystem::path& run_dir) {
  std::string name = slurp(run_dir / "checkpoints/latest");
  while (!name.empty() && name.back() == '\n') name.pop_back();
  return run_dir / "checkpoints" / name;
}

inline const std::vector<std::string>& state_files() {
  static const std::vector<std::string> files = {"model.safetensors", "optimizer.safetensors",
                                                 "ema.safetensors", "state.json"};
  return files;
}

}  // namespace nf::test

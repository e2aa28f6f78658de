// Every key of a run's TOML file (contract, "Config"). Plain structs with defaults; each visit() is
// the one list that parses, prints, overrides, documents and hashes. Keys marked affects_result =
// false may change when a run is resumed.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/options.h"
#include "data_pipeline/augment.h"
#include "data_pipeline/loader.h"
#include "data_pipeline/sampler.h"
#include "models/nfnet/spec.h"

namespace nf::train {

struct RunOptions {
  int64_t seed = 0;
  int64_t threads_per_rank = 1;
  std::string device = "auto";
  double peak_tflops = 0;
  void visit(Fields& f);
};

struct DataConfig {
  std::string path;
  std::string split = "train";
  int64_t image_size = 224;
  int64_t workers = 2;
  int64_t prefetch = 4;
  std::string read = "pread";
  std::string shuffle = "global";
  int64_t window_shards = 16;
  int64_t repeat_augmentation = 1;
  std::string crop = "random_resized";
  std::string interpolation = "bicubic";
  double scale_min = 0.08;
  int64_t padding = 4;
  bool flip = true;
  int64_t randaugment_layers = 0;
  double randaugment_magnitude = 10;
  double mixup_alpha = 0;
  bool cutmix = false;
  double max_bad_fraction = 0.001;
  bool trace = false;
  void visit(Fields& f);
};

struct ModelConfig {
  std::string name = "nfnet_f0";
  std::vector<int64_t> depths;
  std::vector<int64_t> widths;
  int64_t classes = 0;
  double dropout = 0;
  double stochastic_depth = 0;
  std::string flavour = "dm";
  std::string stage1_mid = "default";
  void visit(Fields& f);
};

struct BatchConfig {
  int64_t size = 4096;
  int64_t micro_batches = 64;
  void visit(Fields& f);
};

struct ScheduleConfig {
  double epochs = 1;
  double warmup_epochs = -1;
  std::vector<int64_t> image_sizes;
  std::vector<double> image_size_starts;
  void visit(Fields& f);
};

struct OptimizerConfig {
  double learning_rate = 1.6;
  double momentum = 0.9;
  double weight_decay = 1e-6;
  double agc_clip = 0.01;
  double agc_eps = 1e-3;
  double layer_decay = 1;
  std::vector<double> stage_scale;
  std::vector<std::string> freeze;
  void visit(Fields& f);
};

struct SamConfig {
  double rho = 0;
  double fraction = 0.2;
  bool adaptive = false;
  void visit(Fields& f);
};

struct EmaConfig {
  double decay = 0;
  void visit(Fields& f);
};

struct LossConfig {
  std::string kind = "softmax";
  double label_smoothing = 0;
  void visit(Fields& f);
};

struct PrecisionConfig {
  std::string compute = "float32";
  void visit(Fields& f);
};

struct CommConfig {
  std::string backend = "auto";
  std::string reduction = "exact";
  double timeout_seconds = 600;
  double heartbeat_seconds = 6;
  bool shared_memory = true;
  void visit(Fields& f);
};

struct CheckpointConfig {
  int64_t every_steps = 1000;
  double every_minutes = 0;
  int64_t keep = 3;
  int64_t keep_every_steps = 0;
  std::string keep_best = "loss";
  bool background = true;
  void visit(Fields& f);
};

struct TrainConfig {
  std::string on_non_finite = "stop";
  std::string profile;
  std::string recompute = "none";
  double memory_gib = 0;
  void visit(Fields& f);
};

struct EvaluateConfig {
  int64_t every_steps = 0;
  std::string split;
  int64_t image_size = 0;
  int64_t resize_margin = -1;
  int64_t chunk = 64;
  void visit(Fields& f);
};

struct InitConfig {
  std::string weights;
  bool new_head = false;
  bool ema = false;
  void visit(Fields& f);
};

struct LimitConfig {
  double wall_minutes = 0;
  int64_t steps = 0;
  void visit(Fields& f);
};

struct LogConfig {
  int64_t every_steps = 1;
  bool tensorboard = true;
  void visit(Fields& f);
};

struct RunConfig {
  RunOptions run;
  DataConfig data;
  ModelConfig model;
  BatchConfig batch;
  ScheduleConfig schedule;
  OptimizerConfig optimizer;
  SamConfig sam;
  EmaConfig ema;
  LossConfig loss;
  PrecisionConfig precision;
  CommConfig comm;
  CheckpointConfig checkpoint;
  EvaluateConfig evaluate;
  InitConfig init;
  LimitConfig limit;
  LogConfig log;
  TrainConfig train;

  Fields fields();  // of this object: keep it alive as long as the list
};

// Reads the file and the overrides and checks what spans several keys. Relative paths (data.path,
// init.weights) count from the working directory. Throws Error(kUsage) with all errors at once.
RunConfig load_run_config(const std::filesystem::path& file,
                          const std::vector<std::string>& overrides);
// "20..25" or "steps 20..25" -> {20, 25}; "" -> nullopt. Throws Error(kUsage) for anything else.
struct StepRange {
  uint64_t first, last;
};
std::optional<StepRange> parse_step_range(const std::string& text);
// The checks that span keys: divisibility, splits, sizes. Throws Error(kUsage).
void check_run_config(const RunConfig& config);

// The options of the parts that a config stands for.
model::NfnetSpec model_spec(const ModelConfig& config, int64_t classes);
data::AugmentOptions train_augment(const RunConfig& config);
// Where each of schedule.image_sizes begins, in positions of a run that ends at end_position.
std::vector<data::TrainPlan::SizeStage> size_stages(const ScheduleConfig& config,
                                                    uint64_t end_position);
// The size that training ends with, and that evaluation takes by default.
int64_t final_image_size(const RunConfig& config);
// Evaluation preprocessing at `image_size`; margin -1: 32 pixels from 128 px up, none below (spec
// section 11).
data::AugmentOptions eval_augment(int64_t image_size, int64_t resize_margin,
                                  const std::string& interpolation);

}  // namespace nf::train

// See run_config.h.
#include "trainer/run_config.h"

#include <charconv>
#include <cmath>

#include "core/error.h"

namespace nf::train {
namespace {
FieldRules runtime(double min = -1e300) { return {.affects_result = false, .min = min}; }
FieldRules at_least(double min) { return {.min = min}; }
FieldRules between(double min, double max) { return {.min = min, .max = max}; }
FieldRules one_of(std::vector<std::string> values) { return {.one_of = std::move(values)}; }
}  // namespace

void RunOptions::visit(Fields& f) {
  f("seed", seed, "the run's only source of randomness", at_least(0));
  f("threads_per_rank", threads_per_rank,
    "compute threads of each rank; part of the result's bits on a CPU, so fixed for a run",
    at_least(1));
  f("device", device,
    "where the network runs; auto takes CUDA when the plug-in and a device are there",
    {.affects_result = false, .one_of = {"auto", "cpu", "cuda"}});
  f("peak_tflops", peak_tflops,
    "peak of one rank's device for the mfu column, TFLOP/s; 0: known GPU peak, or on a CPU the "
    "measured "
    "matrix-product rate",
    runtime(0));
}

void DataConfig::visit(Fields& f) {
  f("path", path, "data set folder made by nf-pack", runtime());
  f("split", split, "split to train on");
  f("image_size", image_size, "training image side, pixels", between(8, 4096));
  f("workers", workers, "loader threads per rank; 0 decodes in the training thread", runtime(0));
  f("prefetch", prefetch, "micro-batches loaded ahead", runtime(1));
  f("read", read,
    "pread: the bytes of images are copied from the shards; mmap: used in place, shards mapped",
    {.affects_result = false, .one_of = {"pread", "mmap"}});
  f("shuffle", shuffle,
    "sample order: one permutation of all, or permuted windows of shards for slow disks",
    one_of({"global", "windowed"}));
  f("window_shards", window_shards, "shards shuffled together when data.shuffle is windowed",
    at_least(1));
  f("repeat_augmentation", repeat_augmentation, "augmented copies of each sample in a batch",
    at_least(1));
  f("crop", crop, "training crop: random_resized (ImageNet), random_padded (CIFAR), center (none)",
    one_of({"random_resized", "random_padded", "center"}));
  f("interpolation", interpolation, "resize kernel", one_of({"bicubic", "bilinear"}));
  f("scale_min", scale_min, "random_resized: least part of the image's area in a crop",
    between(0.001, 1));
  f("padding", padding, "random_padded: pixels added on each side", at_least(0));
  f("flip", flip, "mirror half of the training images");
  f("randaugment_layers", randaugment_layers,
    "RandAugment operations on each training image; 0: none, the recipe has 4", between(0, 16));
  f("randaugment_magnitude", randaugment_magnitude, "strength of each, 10 is the usual maximum",
    between(0, 30));
  f("mixup_alpha", mixup_alpha,
    "MixUp: blends two images, the share drawn from Beta(alpha, alpha); 0: none, the recipe has "
    "0.2",
    between(0, 100));
  f("cutmix", cutmix,
    "CutMix: a box of one image in another; together with MixUp each takes half of the images");
  f("max_bad_fraction", max_bad_fraction, "stop (exit 3) above this part of undecodable samples",
    {.affects_result = false, .min = 0, .max = 1});
  f("trace", trace, "write trace/rank_NNNNN.tsv: each sample at the moment a step takes it",
    runtime());
}

void ModelConfig::visit(Fields& f) {
  f("name", name,
    "network: nfnet_f0 .. nfnet_f7, nfnet_f0plus .. nfnet_f7plus, nfnet_pico, _nano, _micro, "
    "_mini");
  f("depths", depths, "blocks per stage; empty: the variant's", at_least(1));
  f("widths", widths, "channels per stage; empty: the variant's", at_least(1));
  f("classes", classes, "outputs of the classifier; 0: as many as the data set has classes",
    at_least(0));
  f("dropout", dropout, "dropout before the classifier", between(0, 0.99));
  f("stochastic_depth", stochastic_depth, "drop rate of the last residual branch, linear from 0",
    between(0, 1));
  f("flavour", flavour, "numerics: DeepMind's released code, or timm's dm_nfnet",
    one_of({"dm", "timm"}));
  f("stage1_mid", stage1_mid,
    "bottleneck of a '+' net's first stage: paper keeps 192 channels, code rounds to 128",
    one_of({"default", "keep", "round"}));
}

void BatchConfig::visit(Fields& f) {
  f("size", size, "samples per update, over all ranks", at_least(1));
  f("micro_batches", micro_batches,
    "parts of a batch: unit of memory and of summation order, upper limit for the number of ranks",
    at_least(1));
}

void ScheduleConfig::visit(Fields& f) {
  f("epochs", epochs, "length of the run in passes over the split; fractions allowed",
    {.min = 1e-9});
  f("warmup_epochs", warmup_epochs,
    "linear warm-up; -1: the smaller of 5000 steps and 5 % of the run", at_least(-1));
  f("image_sizes", image_sizes,
    "progressive training image sides, e.g. [128, 160, 192]; empty: data.image_size throughout",
    between(8, 4096));
  f("image_size_starts", image_size_starts,
    "where each of them begins, as a part of the run, e.g. [0, 0.4, 0.7]; empty: equal parts",
    between(0, 1));
}

void OptimizerConfig::visit(Fields& f) {
  f("learning_rate", learning_rate, "peak of the cosine schedule", at_least(0));
  f("momentum", momentum, "Nesterov momentum", between(0, 0.99999));
  f("weight_decay", weight_decay,
    "coupled decay of convolution, squeeze-excite and classifier weights", at_least(0));
  f("agc_clip", agc_clip, "adaptive gradient clipping threshold; 0: off", at_least(0));
  f("agc_eps", agc_eps, "least parameter norm in the clipping threshold", at_least(0));
  f("layer_decay", layer_decay,
    "fine-tuning: each layer (stem, block, ..., classifier) learns this factor more slowly than "
    "the one after it, as timm's --layer-decay",
    between(1e-6, 1));
  f("stage_scale", stage_scale,
    "factors of the learning rate: stem, four stages, final_conv with classifier; empty: 1",
    at_least(0));
  f("freeze", freeze,
    "parameters that stay as they are, by the beginning of timm's name, e.g. [\"stem\", "
    "\"stages.0\"]");
}

void SamConfig::visit(Fields& f) {
  f("rho", rho, "sharpness-aware minimization: length of the move uphill (0.05); 0: off",
    at_least(0));
  f("fraction", fraction, "part of each micro-batch whose gradient points uphill",
    between(1e-9, 1));
  f("adaptive", adaptive, "ASAM: scale each weight's move by its square (rho about 1)");
}

void EmaConfig::visit(Fields& f) {
  f("decay", decay, "exponential moving average of the weights; 0: none", between(0, 0.9999999));
}

void LossConfig::visit(Fields& f) {
  f("kind", kind, "softmax: one label a sample; sigmoid: any number",
    one_of({"softmax", "sigmoid"}));
  f("label_smoothing", label_smoothing, "mass spread evenly over all classes (softmax)",
    between(0, 0.99));
}

void PrecisionConfig::visit(Fields& f) {
  f("compute", compute, "type of activations and gradients; parameters and updates are float32",
    one_of({"float32", "bfloat16"}));
}

void CommConfig::visit(Fields& f) {
  f("backend", backend, "how ranks talk; auto: mpi when started by mpirun or srun",
    {.affects_result = false, .one_of = {"auto", "mpi", "nccl"}});
  f("reduction", reduction,
    "exact: fixed summation tree, same bits for any number of ranks; fast: the library's "
    "all-reduce; fixed64: integer sums, slow, to check the others",
    one_of({"exact", "fast", "fixed64"}));
  f("timeout_seconds", timeout_seconds,
    "a collective that takes longer ends the job with exit code 5", runtime(1));
  f("heartbeat_seconds", heartbeat_seconds,
    "a rank that gives no sign of life for this long, or stands still in a step for much longer "
    "than "
    "steps took so far, ends the job with exit code 5; 0: no watchdog",
    runtime(0));
  f("shared_memory", shared_memory,
    "ranks of one host sum gradients, and on CPUs update weights, in memory they share instead of "
    "sending messages and each doing all of it",
    runtime());
}

void CheckpointConfig::visit(Fields& f) {
  f("every_steps", every_steps, "updates between checkpoints; 0: only at the end and when stopped",
    runtime(0));
  f("every_minutes", every_minutes, "minutes between checkpoints, whichever comes first; 0: off",
    runtime(0));
  f("keep", keep, "newest checkpoints to keep", runtime(1));
  f("keep_every_steps", keep_every_steps,
    "keep the checkpoints of these multiples for ever; 0: none", runtime(0));
  f("keep_best", keep_best, "keep the checkpoint that is best on evaluate.split, by this figure",
    {.affects_result = false, .one_of = {"loss", "top1", "none"}});
  f("background", background,
    "write checkpoints from a copy on a thread of its own while training goes on", runtime());
}

void EvaluateConfig::visit(Fields& f) {
  f("every_steps", every_steps, "updates between evaluations; 0: only at the end", runtime(0));
  f("split", split, "split to evaluate on; empty: no evaluation", runtime());
  f("image_size", image_size, "evaluation image side; 0: as for training", runtime(0));
  f("resize_margin", resize_margin,
    "images are resized to side + margin, then cropped; -1: 32 from 128 px up, else 0",
    runtime(-1));
  f("chunk", chunk, "images evaluated at once", runtime(1));
}

void InitConfig::visit(Fields& f) {
  f("weights", weights,
    "checkpoint folder or .safetensors file (timm names) to start from; empty: random");
  f("new_head", new_head, "start the classifier anew instead of loading it");
  f("ema", ema, "start from the averaged weights of a checkpoint instead of the raw ones");
}

void LimitConfig::visit(Fields& f) {
  f("wall_minutes", wall_minutes, "save and exit with 75 after this time; 0: none", runtime(0));
  f("steps", steps, "end the run after this many updates, schedule unchanged; 0: none", runtime(0));
}

void LogConfig::visit(Fields& f) {
  f("every_steps", every_steps, "updates between train lines of metrics.jsonl", runtime(1));
  f("tensorboard", tensorboard, "write TensorBoard event files", runtime());
}

void TrainConfig::visit(Fields& f) {
  f("on_non_finite", on_non_finite,
    "when loss or gradient is not finite: stop (exit 6), or skip the update and go on",
    one_of({"stop", "skip"}));
  f("profile", profile,
    "write timeline/rank_NNNNN.json (Chrome trace) of these steps, as in \"20..25\" or \"steps "
    "20..25\"; empty: none",
    runtime());
  f("recompute", recompute,
    "blocks: keep only the blocks' inputs and compute the rest again in the backward pass (same "
    "bits, less memory, more time); auto: where memory would not do",
    {.affects_result = false, .one_of = {"none", "blocks", "auto"}});
  f("memory_gib", memory_gib,
    "memory of one rank, for recompute = \"auto\"; 0: its share of what is free (on a GPU: blocks "
    "are recomputed)",
    runtime(0));
}

Fields RunConfig::fields() {
  Fields f;
  f.section("run", run);
  f.section("data", data);
  f.section("model", model);
  f.section("batch", batch);
  f.section("schedule", schedule);
  f.section("optimizer", optimizer);
  f.section("sam", sam);
  f.section("ema", ema);
  f.section("loss", loss);
  f.section("precision", precision);
  f.section("comm", comm);
  f.section("checkpoint", checkpoint);
  f.section("evaluate", evaluate);
  f.section("init", init);
  f.section("limit", limit);
  f.section("log", log);
  f.section("train", train);
  return f;
}

std::optional<StepRange> parse_step_range(const std::string& text) {
  if (text.empty()) return std::nullopt;
  StepRange r{};
  constexpr std::string_view kWord = "steps ";
  const char* const begin = text.data() + (text.starts_with(kWord) ? kWord.size() : 0);
  const size_t dots = text.find("..");
  const char* const end = text.data() + text.size();
  const auto number = [](const char* from, const char* to, uint64_t& out) {
    const auto [stop, error] = std::from_chars(from, to, out);
    return error == std::errc() && stop == to && from != to;
  };
  if (dots == std::string::npos || !number(begin, text.data() + dots, r.first) ||
      !number(text.data() + dots + 2, end, r.last) || r.first == 0 || r.last < r.first)
    throw Error(ExitCode::kUsage, "train.profile",
                "train.profile must be a range of steps such as \"20..25\", not \"" + text + "\"");
  return r;
}

namespace {
void check_image_sizes(const ScheduleConfig& s, std::vector<std::string>& problems) {
  const auto& starts = s.image_size_starts;
  if (starts.empty()) return;
  if (starts.size() != s.image_sizes.size()) {
    problems.push_back("schedule.image_size_starts needs one number for each of image_sizes");
    return;
  }
  bool rising = starts.front() == 0 && starts.back() < 1;
  for (size_t i = 1; i < starts.size(); ++i) rising = rising && starts[i] > starts[i - 1];
  if (!rising) problems.push_back("schedule.image_size_starts must begin with 0 and rise below 1");
}
}  // namespace

void check_run_config(const RunConfig& c) {
  std::vector<std::string> problems;
  if (c.data.path.empty())
    problems.push_back("data.path is missing: the data set folder made by nf-pack");
  if (c.batch.size % c.batch.micro_batches != 0)
    problems.push_back("batch.size " + std::to_string(c.batch.size) +
                       " is not divisible by batch.micro_batches " +
                       std::to_string(c.batch.micro_batches));
  if (c.batch.size % c.data.repeat_augmentation != 0)
    problems.push_back("batch.size " + std::to_string(c.batch.size) +
                       " is not divisible by data.repeat_augmentation " +
                       std::to_string(c.data.repeat_augmentation));
  if (c.loss.kind == "sigmoid" && c.loss.label_smoothing > 0)
    problems.push_back("loss.label_smoothing applies to loss.kind = \"softmax\" only");
  if ((c.init.new_head || c.init.ema) && c.init.weights.empty())
    problems.push_back("init.new_head and init.ema need init.weights");
  if (!c.optimizer.stage_scale.empty() && c.optimizer.stage_scale.size() != 6)
    problems.push_back(
        "optimizer.stage_scale needs 6 numbers: stem, four stages, final_conv with classifier");
  check_image_sizes(c.schedule, problems);
  try {
    parse_step_range(c.train.profile);
  } catch (const Error& e) {
    problems.push_back(e.what());
  }
  if (c.evaluate.every_steps > 0 && c.evaluate.split.empty())
    problems.push_back("evaluate.every_steps needs evaluate.split");
  if (c.model.depths.size() != c.model.widths.size() && !c.model.depths.empty() &&
      !c.model.widths.empty())
    problems.push_back("model.depths and model.widths must have the same length");
  try {
    model_spec(c.model, 10);
  } catch (const Error& e) {
    problems.push_back(std::string("model: ") + e.what() +
                       (e.hint().empty() ? "" : " (" + e.hint() + ")"));
  }
  if (problems.empty()) return;
  std::string text = problems[0];
  if (problems.size() > 1) {
    text = std::to_string(problems.size()) + " errors";
    for (const auto& p : problems) text += "\n  " + p;
  }
  throw Error(ExitCode::kUsage, "config", text,
              "--help-config lists every key with its default and meaning");
}

RunConfig load_run_config(const std::filesystem::path& file,
                          const std::vector<std::string>& overrides) {
  RunConfig config;
  Fields fields = config.fields();
  parse_config(file, overrides, fields);
  check_run_config(config);
  return config;
}

model::NfnetSpec model_spec(const ModelConfig& config, int64_t classes) {
  model::NfnetSpec spec = model::nfnet_spec(config.name);
  model::override_shape(spec, config.depths, config.widths);
  if (config.stage1_mid != "default") spec.round_mid = config.stage1_mid == "round";
  spec.classes = config.classes > 0 ? config.classes : classes;
  spec.flavour = model::parse_flavour(config.flavour);
  return spec;
}

data::AugmentOptions train_augment(const RunConfig& config) {
  data::AugmentOptions a;
  a.image_size = config.data.image_size;
  a.crop = config.data.crop == "random_resized"  ? data::Crop::kRandomResized
           : config.data.crop == "random_padded" ? data::Crop::kRandomPadded
                                                 : data::Crop::kCenter;
  a.interpolation = config.data.interpolation == "bilinear" ? data::Interpolation::kBilinear
                                                            : data::Interpolation::kBicubic;
  a.scale_min = config.data.scale_min;
  a.padding = config.data.padding;
  a.flip = config.data.flip;
  a.resize_margin = 0;
  a.mix = {config.data.mixup_alpha, config.data.cutmix};
  a.randaugment = {config.data.randaugment_layers, config.data.randaugment_magnitude};
  return a;
}

std::vector<data::TrainPlan::SizeStage> size_stages(const ScheduleConfig& s,
                                                    uint64_t end_position) {
  std::vector<data::TrainPlan::SizeStage> stages;
  const auto count = static_cast<double>(s.image_sizes.size());
  for (size_t i = 0; i < s.image_sizes.size(); ++i) {
    const double start =
        s.image_size_starts.empty() ? static_cast<double>(i) / count : s.image_size_starts[i];
    stages.push_back(
        {static_cast<uint64_t>(std::llround(start * static_cast<double>(end_position))),
         s.image_sizes[i]});
  }
  return stages;
}

int64_t final_image_size(const RunConfig& config) {
  return config.schedule.image_sizes.empty() ? config.data.image_size
                                             : config.schedule.image_sizes.back();
}

data::AugmentOptions eval_augment(int64_t image_size, int64_t resize_margin,
                                  const std::string& interpolation) {
  data::AugmentOptions a;
  a.image_size = image_size;
  a.crop = data::Crop::kCenter;
  a.interpolation =
      interpolation == "bilinear" ? data::Interpolation::kBilinear : data::Interpolation::kBicubic;
  a.resize_margin = resize_margin >= 0 ? resize_margin : (image_size >= 128 ? 32 : 0);
  a.flip = false;
  return a;
}

}  // namespace nf::train

// nf-eval: loss and accuracy of a checkpoint or weights file on a split (contract, "Programs").
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include "core/atomic_file.h"
#include "core/command_line.h"
#include "core/program.h"
#include "trainer/checkpoint/export.h"
#include "trainer/comm/local.h"
#include "trainer/device/cpu_pool.h"
#include "trainer/evaluate.h"
#include "trainer/load_model.h"
#include "trainer/predictions.h"
#include "trainer/run_config.h"

namespace {
using namespace nf;

constexpr const char* kExample =
    "example:\n"
    "  nf-eval --weights runs/first/checkpoints/latest --data cifar10 --split test --image-size "
    "32\n"
    "  nf-eval --weights dm_nfnet_f0.safetensors --model nfnet_f0 --flavour timm --data imagenet "
    "--split val --image-size 256";

struct Options {
  std::string weights, data, split = "val", model, flavour, predictions, tensors, output,
                             interpolation = "bicubic", loss = "softmax";
  int64_t image_size = 0, resize_margin = -1, save_count = 64, chunk = 64;
  int workers = 2, threads = 1;
  bool ema = false;
};

void add_options(CLI::App& app, Options& o) {
  app.footer(kExample);
  app.add_option("--weights", o.weights, "checkpoint folder or .safetensors file with timm's names")
      ->required();
  app.add_option("--data", o.data, "data set folder")->required();
  app.add_option("--split", o.split, "split of the data set")->capture_default_str();
  app.add_option("--image-size", o.image_size,
                 "side in pixels; default: the training size that the weights name");
  app.add_option("--resize-margin", o.resize_margin,
                 "resize to side + margin before the centre crop; -1: 32 from 128 px up, else 0");
  app.add_option("--interpolation", o.interpolation, "bicubic or bilinear")
      ->check(CLI::IsMember({"bicubic", "bilinear"}));
  app.add_option("--model", o.model, "network, where the file does not name it");
  app.add_option("--flavour", o.flavour,
                 "numerics: dm or timm; default: what the file says, else dm")
      ->check(CLI::IsMember({"dm", "timm"}));
  app.add_option("--loss", o.loss, "softmax or sigmoid")
      ->check(CLI::IsMember({"softmax", "sigmoid"}));
  app.add_flag("--ema", o.ema, "the averaged weights of a checkpoint");
  app.add_option("--predictions", o.predictions,
                 "CSV: index, label, top-5 classes with probabilities");
  app.add_option("--save-tensors", o.tensors, "safetensors with images, logits, labels, indices");
  app.add_option("--save-count", o.save_count, "images in --save-tensors")->capture_default_str();
  app.add_option("--batch", o.chunk, "images at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--workers", o.workers, "loader threads")->capture_default_str();
  app.add_option("--threads", o.threads, "compute threads")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--output", o.output, "also write the JSON there");
}

int evaluate_weights(int argc, char** argv) {
  CLI::App app("Evaluates weights on a split: every image once, float32.", "nf-eval");
  Options o;
  add_options(app, o);
  if (const auto code = parse_command_line(app, argc, argv)) return *code;
  at::set_num_threads(o.threads);
  train::use_cpu_pool();
  const data::ShardDataset set(o.data, o.split);
  const auto loaded =
      train::load_model(o.weights, o.ema ? train::WeightsChoice::kEma : train::WeightsChoice::kRaw,
                        o.model, o.flavour);
  train::EvalOptions options;
  options.preprocess = train::eval_augment(o.image_size > 0 ? o.image_size : loaded.image_size,
                                           o.resize_margin, o.interpolation);
  options.chunk = o.chunk;
  options.workers = o.workers;
  options.loss_kind = o.loss;
  train::LocalCommunicator comm;
  train::PredictionWriter writer(o.predictions, set.class_names(), o.tensors, o.save_count);
  const auto result = train::evaluate(loaded.net, set, options, comm, writer.tap());
  writer.finish();
  Json json = {{"weights", o.weights},
               {"model", loaded.net.spec().name},
               {"data", o.data},
               {"split", o.split},
               {"image_size", options.preprocess.image_size}};
  json.update(train::to_json(result));
  if (!o.output.empty()) write_file_atomic(o.output, json.dump(2) + "\n");
  fmt::print("{}\n", json.dump(2));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  setenv("MKL_CBWR", "AUTO", 0);
  return nf::run_program("nf-eval", [&] { return evaluate_weights(argc, argv); });
}

// nf-export: the weights of a checkpoint as one safetensors file that timm and PyTorch read
// (contract, "Programs").
#include <fmt/format.h>

#include "core/command_line.h"
#include "core/program.h"
#include "trainer/checkpoint/export.h"

namespace {
using namespace nf;

constexpr const char* kExample =
    "example:\n"
    "  nf-export --checkpoint runs/first/checkpoints/latest --output nfnet_f0.safetensors\n"
    "  then in Python: timm.create_model('dm_nfnet_f0', num_classes=..., "
    "checkpoint_path='nfnet_f0.safetensors')\n"
    "timm computes with its own numerics (erf GELU, eps 1e-5): weights trained with model.flavour "
    "= \"dm\" give slightly "
    "other logits there; train with \"timm\" where they must agree.";

int export_checkpoint(int argc, char** argv) {
  CLI::App app("Exports a checkpoint's weights under timm's names.", "nf-export");
  app.footer(kExample);
  std::string checkpoint, output, weights = "auto", names = "timm", head = "keep";
  app.add_option("--checkpoint", checkpoint, "checkpoint folder (or a weights file)")->required();
  app.add_option("--output", output, "safetensors file to write")->required();
  app.add_option("--weights", weights, "ema, raw, or auto: ema where the checkpoint has it")
      ->check(CLI::IsMember({"auto", "ema", "raw"}));
  app.add_option("--names", names, "naming scheme")->check(CLI::IsMember({"timm"}));
  app.add_option("--head", head, "keep or drop the classifier")
      ->check(CLI::IsMember({"keep", "drop"}));
  if (const auto code = parse_command_line(app, argc, argv)) return *code;
  const auto choice = weights == "ema"   ? train::WeightsChoice::kEma
                      : weights == "raw" ? train::WeightsChoice::kRaw
                                         : train::WeightsChoice::kEmaIfPresent;
  const auto source = train::read_weights(checkpoint, choice);
  for (const auto& w : source.warnings) fmt::print(stderr, "warning: {}\n", w);
  train::ExportOptions options;
  options.keep_head = head == "keep";
  options.metadata = {{"names", names}, {"weights", source.ema ? "ema" : "raw"}};
  train::export_weights(source, output, options);
  fmt::print("{} tensors ({} weights) in {}\n", source.tensors.size(), source.ema ? "ema" : "raw",
             output);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return nf::run_program("nf-export", [&] { return export_checkpoint(argc, argv); });
}

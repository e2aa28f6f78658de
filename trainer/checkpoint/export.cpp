// See export.h.
#include "trainer/checkpoint/export.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <system_error>
#include <utility>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/version.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_names.h"
#include "trainer/checkpoint/manifest.h"

namespace nf::train {
namespace fs = std::filesystem;
namespace {

constexpr const char* kConvert =
    "convert it to safetensors first, in Python: import torch; from safetensors.torch import "
    "save_file; w = torch.load('FILE', map_location='cpu', weights_only=True); "
    "save_file({k: v.float().contiguous() for k, v in w.get('state_dict', w).items()}, "
    "'FILE.safetensors')";

// PyTorch's own formats, by extension or by their first bytes (zip archive, pickle).
bool is_pytorch_file(const fs::path& file) {
  const std::string extension = file.extension().string();
  for (const char* known : {".pth", ".pt", ".bin", ".ckpt", ".tar"})
    if (extension == known) return true;
  char head[4] = {};
  std::ifstream(file, std::ios::binary).read(head, sizeof head);
  const std::string_view start(head, sizeof head);
  return start == std::string_view("PK\3\4", 4) || start.starts_with("\x80\x02");
}

void check_types(const WeightsSource& source) {
  size_t refused = 0;
  const NamedTensor* first = nullptr;
  for (const NamedTensor& t : source.tensors) {
    if (t.tensor.scalar_type() == at::kFloat || t.tensor.scalar_type() == at::kDouble) continue;
    if (first == nullptr) first = &t;
    ++refused;
  }
  if (first == nullptr) return;
  throw Error(ExitCode::kWeights, source.path.string(),
              std::to_string(refused) + " of " + std::to_string(source.tensors.size()) +
                  " tensors are not float32, first: " + first->name + " (" +
                  c10::toString(first->tensor.scalar_type()) + ")",
              "convert the weights to float32 before they are read");
}

WeightsSource from_snapshot(Loaded loaded, WeightsChoice choice) {
  Snapshot& s = loaded.snapshot;
  WeightsSource out;
  out.warnings = std::move(loaded.warnings);
  if (choice == WeightsChoice::kEma && s.ema.empty())
    throw Error(ExitCode::kWeights, loaded.directory.string(), "the checkpoint has no EMA weights",
                "choose the raw weights");
  out.ema = choice != WeightsChoice::kRaw && !s.ema.empty();
  out.path = loaded.directory / (out.ema ? kEmaName : kModelName);
  out.tensors = std::move(out.ema ? s.ema : s.model);
  out.metadata = std::move(s.model_metadata);
  out.metadata["step"] = std::to_string(s.state.step);
  return out;
}

// A checkpoint itself, a folder of checkpoints, or a run directory.
WeightsSource from_directory(const fs::path& path, WeightsChoice choice) {
  const fs::path directory = path.has_filename() ? path : path.parent_path();  // "run/" is "run"
  if (fs::exists(directory / kManifestName) || step_of_name(directory.filename().string()))
    return from_snapshot(load_checkpoint(directory), choice);
  for (const fs::path& folder : {directory / "checkpoints", directory})
    if (std::optional<Loaded> loaded = load_latest(folder))
      return from_snapshot(std::move(*loaded), choice);
  throw Error(ExitCode::kWeights, path.string(), "the directory holds no checkpoint",
              "give a checkpoint (RUN_DIR/checkpoints/step_...), a run directory with one, or a "
              ".safetensors file");
}

}  // namespace

WeightsSource read_weights(const fs::path& given, WeightsChoice choice) {
  const fs::path path = follow_latest(given);
  if (!fs::exists(path))
    throw Error(ExitCode::kWeights, path.string(), "no such file or directory",
                "give a checkpoint directory or a .safetensors file");
  WeightsSource out;
  if (fs::is_directory(path)) {
    out = from_directory(path, choice);
  } else {
    if (is_pytorch_file(path))
      throw Error(ExitCode::kWeights, path.string(), "a PyTorch file, not safetensors", kConvert);
    LoadedTensors loaded = read_tensors(path);
    out.path = path;
    out.tensors = std::move(loaded.tensors);
    out.metadata = std::move(loaded.metadata);
    const auto weights = out.metadata.find("weights");
    out.ema = weights != out.metadata.end() && weights->second == "ema";
  }
  check_types(out);
  return out;
}

void export_weights(const WeightsSource& source, const fs::path& output,
                    const ExportOptions& options) {
  std::vector<NamedTensor> tensors;
  for (const NamedTensor& t : source.tensors)
    if (options.keep_head || !t.name.starts_with("head.")) tensors.push_back(t);
  Metadata metadata = source.metadata;
  for (const auto& [key, value] : options.metadata) metadata[key] = value;
  metadata["format"] = "pt";
  metadata["producer"] = std::string("nfscale ") + kVersion;
  metadata["weights"] = source.ema ? "ema" : "raw";
  metadata["head"] = options.keep_head ? "keep" : "drop";

  const fs::path temporary = output.string() + ".tmp." + std::to_string(::getpid());
  try {
    write_tensors(temporary, tensors, metadata);
    rename_durable(temporary, output);
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
}

}  // namespace nf::train

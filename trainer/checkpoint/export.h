// Weights in and out under timm's names: what nf-export writes, nf-eval reads and init.weights
// takes. The parameters' own names are timm's names (nfnet_spec.md section 4), so exchange is a
// choice of tensors and a header, no renaming. Misfits are told in one message that lists
// everything that does not fit (exit code 4).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "trainer/checkpoint/named_tensors.h"

namespace nf::train {

enum class WeightsChoice {
  kRaw,
  kEma,           // an error where there are none
  kEmaIfPresent,  // raw weights where there are none
};

struct WeightsSource {
  std::filesystem::path path;  // the file that the tensors came from
  std::vector<NamedTensor> tensors;
  Metadata
      metadata;  // header of the file: "model", "flavour", "classes", "image_size", ... where known
  bool ema = false;
  std::vector<std::string> warnings;  // damaged newer checkpoints that were passed over
};

// path: a checkpoint directory (verified against its manifest), a run directory or its checkpoints/
// (newest checkpoint), or a .safetensors file (choice does not matter). Throws Error(kWeights):
// damaged; .pth, .pt, .bin (hint how to convert); tensors other than float32 (float64 is read for
// tests).
WeightsSource read_weights(const std::filesystem::path& path,
                           WeightsChoice choice = WeightsChoice::kRaw);

struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
};

struct FitOptions {
  std::string model{};    // for the message: what the weights should fit
  bool new_head = false;  // init.new_head: tensors named head.* are neither taken nor missed
};

// The source's tensors in the order of `expected` (without head.* for a new head). Throws one
// Error(kWeights) that lists missing tensors, unexpected tensors and wrong shapes, with a hint when
// only the head does not fit.
std::vector<NamedTensor> fit_weights(const WeightsSource& source,
                                     const std::vector<ExpectedTensor>& expected,
                                     const FitOptions& options);

struct ExportOptions {
  bool keep_head = true;
  Metadata metadata{};  // added to the source's; wins over it
};

// Writes the tensors to output atomically, metadata in the header plus "format" = "pt" (what
// PyTorch tools look for), "producer", "weights" = "ema" | "raw" and "head" = "keep" | "drop".
// Equal input gives equal bytes.
void export_weights(const WeightsSource& source, const std::filesystem::path& output,
                    const ExportOptions& options);

}  // namespace nf::train

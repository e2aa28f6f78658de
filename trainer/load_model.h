// A network with weights from a checkpoint folder or a safetensors file, ready to evaluate.
#pragma once

#include <string>

#include "models/nfnet/nfnet.h"
#include "trainer/checkpoint/export.h"

namespace nf::train {

struct LoadedModel {
  model::Nfnet net;
  int64_t image_size;  // that it was trained at, or the variant's own
};

// name, flavour: as on the command line, empty to take the file's. Throws Error(kWeights) listing
// what does not fit.
LoadedModel load_model(const std::string& path, WeightsChoice choice, const std::string& name,
                       const std::string& flavour);

}  // namespace nf::train

// The parameters of a spec by name, shape and role, in the order of timm's modules. Our names are
// timm's names, so a checkpoint, an exported file and the network share one list; weights from
// outside are compared against it in words a user can act on.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/param_role.h"
#include "models/nfnet/spec.h"

namespace nf::model {

struct ParameterSpec {
  std::string name;  // e.g. stages.0.0.conv2b.gain
  std::vector<int64_t>
      shape;  // conv [out, in/groups, kh, kw], gain [out,1,1,1], skip gain [], linear [out, in]
  ParamRole role;
  // Of a convolution's weight: gamma and 1/beta of the activations in front of it, which its
  // standardized form is multiplied by in their place (layers.h).
  double scale = 1;
  int64_t elements() const;
  int64_t fan_in() const;  // elements per output (first dimension); 1 for vectors and scalars
};

// Every parameter, always in the same order.
std::vector<ParameterSpec> parameter_specs(const NfnetSpec& spec);

using NamedShape = std::pair<std::string, std::vector<int64_t>>;

// kRequired: every tensor must be there. kOptional: head.fc.* may be absent or of another number of
// classes (fine-tuning).
enum class HeadRule { kRequired, kOptional };

// What does not fit, one line per tensor ("missing: ...", "unexpected: ...", "shape: ..."); empty
// when all fits.
std::vector<std::string> weight_mismatches(const NfnetSpec& spec,
                                           const std::vector<NamedShape>& tensors,
                                           HeadRule head = HeadRule::kRequired);
// Throws Error(kWeights) at `where` with the first few mismatches and, where another known variant
// fits, its name.
void check_weights(const NfnetSpec& spec, const std::vector<NamedShape>& tensors,
                   const std::string& where, HeadRule head = HeadRule::kRequired);

// The name of the same parameter in DeepMind's haiku checkpoints: "module/parameter" below the
// network's own scope, e.g. "nf_block_3/conv1b/w", "nf_block/skip_gain", "linear/b". Kernels there
// are HWIO, linear weights [in, out].
std::string haiku_name(const NfnetSpec& spec, const std::string& timm_name);

}  // namespace nf::model

// The network: parameters in timm's names and order, initialization from a seed, and a functional
// forward pass. What it computes depends on parameters, images, options and the number of threads
// alone: every mask is a function of (seed, position of the image in the run), and no global
// generator is ever read. Concurrent forward() calls are safe.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/param_role.h"
#include "models/nfnet/names.h"
#include "models/nfnet/spec.h"

namespace nf::model {

struct NamedParameter {
  std::string name;
  at::Tensor tensor;  // leaf, requires_grad
  ParamRole role;
};

class WorkingWeights;

struct ForwardOptions {
  // false: no dropout and no stochastic depth.
  bool training = false;
  // Type of convolutions and activations. Weights are standardized in the parameters' type and then
  // rounded, so kBFloat16 still has float32 statistics (section 7.1).
  at::ScalarType compute = at::kFloat;
  double dropout = 0;           // rate; inverted scaling
  double stochastic_depth = 0;  // rate at the end of the net: block i of n drops with rate * i / n
  // Masks are functions of the run's seed and of each image's position in the run.
  uint64_t seed = 0;
  std::span<const uint64_t> positions;  // one per image, needed where masks are drawn
  // Of the stem and of each block keep only the input for the backward pass and compute the rest
  // again there: same bits, less memory, more time.
  bool recompute_blocks = false;
  // Weights already standardized in the compute type (working_weights.h); null: each convolution
  // standardizes its own on the way.
  const WorkingWeights* weights = nullptr;
  // Stochastic depth masks [block][image] given instead of drawn, for tests.
  const std::vector<std::vector<float>>* masks = nullptr;
};

// Intermediate results by name: stem, stages.K, final_conv (before its activation), pool.
struct Activations {
  std::vector<std::pair<std::string, at::Tensor>> taps;
};

class Nfnet {
 public:
  // Parameters are allocated and hold zeros until init() or copies. Throws Error(kUsage) on an
  // impossible spec.
  explicit Nfnet(const NfnetSpec& spec, at::ScalarType parameter_type = at::kFloat,
                 at::Device device = at::kCPU);

  // nfnet_spec.md section 3.1. The same numbers on every device, for every thread count and
  // parameter type (rounded once from double). Each tensor draws from a key made of seed and its
  // name.
  void init(uint64_t seed);
  // The classifier alone, for fine-tuning.
  void init_head(uint64_t seed);

  const std::vector<NamedParameter>& parameters() const { return parameters_; }
  const std::vector<ParameterSpec>& parameter_specs() const { return parameter_specs_; }
  const NfnetSpec& spec() const { return spec_; }
  at::Device device() const { return device_; }

  // Replaces a parameter by `storage` (same shape; detached, made a leaf that requires gradients).
  // The values of `storage` hold from then on: copy the old ones first where they matter. For
  // arenas and for loading.
  void rebind(size_t index, const at::Tensor& storage);

  // images [B, 3, H, W] of any floating type on the model's device, normalized. Returns logits [B,
  // classes] in float32, or float64 where the computation is. The graph reaches the parameters
  // where gradients are enabled.
  at::Tensor forward(const at::Tensor& images, const ForwardOptions& options,
                     Activations* taps = nullptr) const;

 private:
  void init_parameter(size_t index, uint64_t seed);
  // [block, B, 1, 1, 1] of 0 and 1, or undefined where every branch stays.
  at::Tensor residual_masks(int64_t batch, const ForwardOptions& options) const;

  NfnetSpec spec_;
  std::vector<BlockSpec> blocks_;
  at::Device device_;
  std::vector<NamedParameter> parameters_;
  std::vector<ParameterSpec> parameter_specs_;
};

}  // namespace nf::model

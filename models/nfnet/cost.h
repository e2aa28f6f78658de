// What a network costs, from its spec alone: parameters, multiply-adds, memory for the backward
// pass. The rule for multiply-adds is that of nfnet_spec.md section 1.1, so that our numbers stand
// beside the published ones.
#pragma once

#include <cstdint>

#include "models/nfnet/spec.h"

namespace nf::model {

struct ModelCost {
  int64_t parameters;
  int64_t tensors;
  int64_t parameters_without_head;
  int64_t no_decay_parameters;  // gains, biases and skip gains
};
ModelCost model_cost(const NfnetSpec& spec);

// Multiply-adds of one forward pass of one square image: convolutions, squeeze-excite and
// classifier; nothing for pooling, activations and weight standardization. A training step is
// counted as three times this.
double forward_macs(const NfnetSpec& spec, int64_t image_size);

// Bytes that a forward pass keeps for the backward pass with float32 parameters: inputs of
// convolutions and activations for `batch` images, standardized weights and, below float32, cast
// weights. For dry runs; work spaces and gradients come on top.
double activation_bytes_estimate(const NfnetSpec& spec, int64_t image_size, int64_t batch,
                                 int bytes_per_element);

// The most that activations and their gradients take at any moment of a training step on `batch`
// images: with `recompute` (ForwardOptions::recompute_blocks) stem and
// blocks keep their outputs alone until their turn comes. Three tensors of the part under way stand
// for gradients and work space.
double training_peak_bytes(const NfnetSpec& spec, int64_t image_size, int64_t batch,
                           int bytes_per_element, bool recompute);

// What WorkingWeights hold all the time.
double working_weights_bytes(const NfnetSpec& spec, int bytes_per_element);

// The most for a forward pass alone (evaluation, float32), with the weights of a part.
double evaluation_peak_bytes(const NfnetSpec& spec, int64_t image_size, int64_t batch);

}  // namespace nf::model

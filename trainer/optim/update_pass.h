// The whole update of all parameters on the CPU in two passes over memory: one reads the gradient
// (norms, and whether it is finite), one does everything else (weights' norms, clipping, decay,
// momentum, weights, average) unit by unit, so what it reads twice comes from the cache. 24 bytes a
// float32 parameter, 32 with an average.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "trainer/optim/agc.h"

namespace nf::train {

// One trained parameter, as the pass sees it: contiguous CPU tensors of one shape and type.
struct UpdateTensor {
  at::Tensor value, gradient, momentum;
  at::Tensor average;    // undefined: none
  bool clipped = false;  // AGC looks at it
  double lr = 0;         // its own
  double weight_decay = 0;
};

struct UpdateRule {
  double gradient_scale = 1;  // the gradient is this times what the tensors hold
  double momentum = 0.9;
  bool nesterov = true;
  AgcOptions agc{};
  double average_weight = 0;  // average <- average + weight (value - average)
};

struct UpdateResult {
  double grad_squares = 0;          // of the gradient before clipping
  double clipped_grad_squares = 0;  // and after it
  int64_t units = 0, clipped = 0;   // of AGC
  ptrdiff_t not_finite =
      -1;  // first tensor with a NaN or infinite gradient: then nothing was changed
};

// A rank's part of an update of tensors that lie in memory common to all ranks. All ranks make the
// same calls with the same gradient.
struct UpdateShare {
  int64_t rank = 0, world = 1;
  std::span<double> squares{}, factors{};  // one of each AGC unit, common to all ranks
  std::function<void()> meet{};            // returns once every rank has called it
};

// Equal bits for any number of threads and on every processor, and of ranks that share the update:
// those return when all of it is done, with the figures of the whole.
UpdateResult update_pass(std::span<const UpdateTensor> tensors, const UpdateRule& rule,
                         const UpdateShare* share = nullptr);

}  // namespace nf::train

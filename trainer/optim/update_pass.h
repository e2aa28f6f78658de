// The whole update of all parameters on the CPU in one pass over memory: norms, clipping, decay,
// momentum, weights and average unit by unit, so what is read twice comes from the cache. 20 bytes
// a float32 parameter, 28 with an average. A gradient that is not known to be finite is read once
// more, before anything changes.
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
  bool finite = false;        // what the tensors hold is known to be
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

// The whole update of all parameters on the CPU in two passes over memory: one reads the gradient
// (norms, and whether it is finite), one does everything else (weights' norms, clipping, decay,
// momentum, weights, average) unit by unit, so what it reads twice comes from the cache. 24 bytes a
// float32 parameter, 32 with an average. The composition of ATen operations in kernels.h is the
// same formula for other devices and the reference in tests.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <span>

#include "trainer/optim/agc.h"

namespace nf::train {

// One trained parameter, as the pass sees it: contiguous CPU tensors of one shape and type.
struct UpdateTensor {
  at::Tensor value, gradient, momentum;
  at::Tensor average;     // undefined: none
  bool clipped = false;   // AGC looks at it
  double lr = 0;          // its own
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
  ptrdiff_t not_finite = -1;        // first tensor with a NaN or infinite gradient: then nothing was changed
};

// Equal bits for any number of threads and on every processor.
UpdateResult update_pass(std::span<const UpdateTensor> tensors, const UpdateRule& rule);

}  // namespace nf::train

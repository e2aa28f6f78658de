// GELU, forward and backward: one pass each over memory.
#pragma once

#include <ATen/ATen.h>

namespace nf::model {

// x / (1 + exp(-z)), z = 2 sqrt(2/pi) (x + 0.044715 x^3): the tanh form of GELU (nfnet_spec.md
// section 2), of a float32, float64 or bfloat16 tensor, in x's memory format. float32: absolute
// error below 3e-7 (1 + |x|). On the CPU equal bits on every processor and for any number of
// threads; on other devices without a kernel of ours: PyTorch's.
at::Tensor gelu_tanh(const at::Tensor& x);

}  // namespace nf::model

// GELU, forward and backward: one pass each over memory.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace nf::model {

// x / (1 + exp(-z)), z = 2 sqrt(2/pi) (x + 0.044715 x^3): the tanh form of GELU (nfnet_spec.md
// section 2), of a float32, float64 or bfloat16 tensor, in x's memory format. float32: absolute
// error below 3e-7 (1 + |x|). On the CPU equal bits on every processor and for any number of
// threads; on other devices without a kernel of ours: PyTorch's.
at::Tensor gelu_tanh(const at::Tensor& x);

// gelu_tanh of x [B, C, H, W] with `bottom` rows and `right` columns of zeros behind each image:
// [B, C, H + bottom, W + right]. For an NHWC tensor on the CPU in the same pass, without a copy.
at::Tensor gelu_tanh_padded(const at::Tensor& x, int64_t bottom, int64_t right);

// x itself and gelu_tanh(x), for an x that is used both ways: on the CPU the gradients of the two
// are added in the pass that makes the second.
struct GeluFork {
  at::Tensor x, activated;
};
GeluFork gelu_tanh_fork(const at::Tensor& x);

// gelu_tanh(x) and its means over 2 x 2 pixels, in one pass forward and one backward. x [B, C, H,
// W] with even H and W in NHWC on the CPU, as gelu_tanh_pools tells.
struct GeluPool {
  at::Tensor activated, pooled;
};
bool gelu_tanh_pools(const at::Tensor& x);
GeluPool gelu_tanh_pool(const at::Tensor& x);

}  // namespace nf::model

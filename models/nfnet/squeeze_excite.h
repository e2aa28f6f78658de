// The end of a residual block: squeeze-and-excite, skip gain, dropped branches and the sum with the
// shortcut as one operation.
#pragma once

#include <ATen/ATen.h>

namespace nf::model {

struct SqueezeExcite {
  at::Tensor fc1_weight, fc1_bias, fc2_weight, fc2_bias;  // [h, C, 1, 1], [h], [C, h, 1, 1], [C]
  at::Tensor skip_gain;                                   // one element
  double scale = 1;                                       // 2 alpha
};

// shortcut + o * f with f[b,c] = scale * skip_gain * keep[b] * sigmoid(fc2(relu(fc1(mean over H, W
// of o)))) (nfnet_spec.md section 2). shortcut, o: [B,C,H,W] of one type (float32, float64,
// bfloat16); keep: [B,1,1,1], or undefined: all stay. On the CPU (the result is in NHWC) and, once
// the plug-in is loaded, on a GPU (NHWC or NCHW, as o is): f is computed in the parameters' type
// (float32 for bfloat16), two passes over memory forward, two backward, the same bits for any
// number of threads. Elsewhere the composition below.
at::Tensor excited_sum(const at::Tensor& shortcut, const at::Tensor& o, const SqueezeExcite& p,
                       const at::Tensor& keep);
// The same as a composition of differentiable operations: other devices, and the reference in
// tests.
at::Tensor excited_sum_composed(const at::Tensor& shortcut, const at::Tensor& o,
                                const SqueezeExcite& p, const at::Tensor& keep);

}  // namespace nf::model

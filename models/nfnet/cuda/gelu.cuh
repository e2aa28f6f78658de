// The tanh form of GELU, forward and backward, for a few neighbouring elements: what one CUDA
// thread does. Formulas: models/nfnet/gelu.cpp. On the GPU exp and the division are the hardware's
// approximations (relative error below 3e-6 where the result is not negligible beside x).
#pragma once

#include <cmath>

#include "core/host_device.h"

namespace nf::model {

NF_HOST_DEVICE float approximate_exp(float x) {
#ifdef __CUDA_ARCH__
  return __expf(x);
#else
  return std::exp(x);
#endif
}

NF_HOST_DEVICE float approximate_quotient(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdividef(a, b);  // right for |b| below 2^126
#else
  return a / b;
#endif
}

// exp(-z), z = 2 sqrt(2/pi) (x + 0.044715 x^3), kept within what float32 and the division bear.
NF_HOST_DEVICE float gelu_exp(float x) {
  constexpr float kA = -1.5957691216057308F, kB = kA * 0.044715F, kLimit = 87.0F;
  const float z = x * (kA + kB * (x * x));
  return approximate_exp(fminf(fmaxf(z, -kLimit), kLimit));
}

NF_HOST_DEVICE float gelu_value(float x) { return approximate_quotient(x, 1.0F + gelu_exp(x)); }

NF_HOST_DEVICE float gelu_slope(float x) {
  constexpr float kA = 1.5957691216057308F, kB = 3.0F * kA * 0.044715F;
  const float e = gelu_exp(x), s = approximate_quotient(1.0F, 1.0F + e);
  return s + x * (kA + kB * (x * x)) * ((e * s) * s);
}

// y = gelu(x) for elements [first, first + kCount), those below n.
template <int kCount, class T>
NF_HOST_DEVICE void gelu_pack(const T* x, T* y, int64_t first, int64_t n) {
  if (first + kCount <= n) {
    const Pack<T, kCount> in = load_pack<kCount>(x + first);
    Pack<T, kCount> out;
    for (int k = 0; k < kCount; ++k) store(out.at[k], gelu_value(load(in.at[k])));
    store_pack(y + first, out);
  } else {
    for (int64_t i = first; i < n; ++i) store(y[i], gelu_value(load(x[i])));
  }
}

// dx = grad * gelu'(x), likewise.
template <int kCount, class T>
NF_HOST_DEVICE void gelu_backward_pack(const T* grad, const T* x, T* dx, int64_t first, int64_t n) {
  if (first + kCount <= n) {
    const Pack<T, kCount> g = load_pack<kCount>(grad + first), in = load_pack<kCount>(x + first);
    Pack<T, kCount> out;
    for (int k = 0; k < kCount; ++k) store(out.at[k], load(g.at[k]) * gelu_slope(load(in.at[k])));
    store_pack(dx + first, out);
  } else {
    for (int64_t i = first; i < n; ++i) store(dx[i], load(grad[i]) * gelu_slope(load(x[i])));
  }
}

}  // namespace nf::model

// What hand-written loops over tensors share: the types they see and how bfloat16 is loaded and
// stored (as its 16 bits, so that compilers vectorize the conversion).
#pragma once

#include <ATen/ATen.h>

#include <bit>
#include <cstdint>

#include "core/check.h"

namespace nf::model {

// The type that arithmetic on T is done in.
template <class T>
struct Arithmetic {
  using Type = T;
};
template <>
struct Arithmetic<uint16_t> {
  using Type = float;
};

[[gnu::always_inline]] inline float load(float x) { return x; }
[[gnu::always_inline]] inline double load(double x) { return x; }
[[gnu::always_inline]] inline float load(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
[[gnu::always_inline]] inline void store(float& to, float x) { to = x; }
[[gnu::always_inline]] inline void store(double& to, double x) { to = x; }
[[gnu::always_inline]] inline void store(uint16_t& to, float x) {  // to nearest, ties to even
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to = static_cast<uint16_t>(x == x ? rounded : 0x7fc0);
}

// Calls body with a null pointer of the type that loops see for the tensor's elements: float,
// double, or uint16_t for bfloat16.
template <class Body>
void with_element_type(const at::Tensor& x, const Body& body) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return body(static_cast<float*>(nullptr));
    case at::kDouble:
      return body(static_cast<double*>(nullptr));
    default:
      NF_CHECK(x.scalar_type() == at::kBFloat16, "float32, float64 or bfloat16");
      return body(static_cast<uint16_t*>(nullptr));
  }
}

}  // namespace nf::model

// What hand-written loops over tensors share: the types they see. bfloat16 is loaded and stored as
// its 16 bits (core/host_device.h).
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "core/check.h"
#include "core/host_device.h"

namespace nf::model {

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

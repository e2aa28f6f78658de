// Small tensors that a step makes on the host.
#pragma once

#include <ATen/ATen.h>

namespace nf::model {

// A host tensor on the device. Nobody waits: to a GPU it travels from page-locked memory, which the
// allocator keeps until the copy is done.
inline at::Tensor to_device(const at::Tensor& x, at::Device device) {
  return device.is_cpu() ? x : x.pin_memory().to(device, /*non_blocking=*/true);
}

}  // namespace nf::model

// The block of threads that a CUDA kernel runs in, as core/host_device.h asks for it.
#pragma once

#include "core/host_device.h"

namespace nf {

template <int kCount>
struct DeviceBlock {
  static constexpr int kThreads = kCount;

  template <class T>
  struct PerThread {
    T own;
    NF_HOST_DEVICE T& operator[](int) { return own; }
    NF_HOST_DEVICE const T& operator[](int) const { return own; }
  };

  template <class Body>
  NF_HOST_DEVICE void each(const Body& body) const {
#ifdef __CUDA_ARCH__
    body(static_cast<int>(threadIdx.x));
    __syncthreads();
#else
    static_cast<void>(body);
#endif
  }
};

}  // namespace nf

// A block of a CUDA grid as loops, and memory aligned as device memory is: what tests run the twins
// of the kernels on (core/host_device.h).
#pragma once

#include <array>
#include <vector>

#include "core/host_device.h"

namespace nf::test {

template <int kCount>
struct HostBlock {
  static constexpr int kThreads = kCount;
  template <class T>
  using PerThread = std::array<T, static_cast<size_t>(kCount)>;

  template <class Body>
  void each(const Body& body) const {
    for (int t = 0; t < kCount; ++t) body(t);
  }
};

}  // namespace nf::test

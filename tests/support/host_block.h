// A block of a CUDA grid as loops: what tests run the twins of the kernels on (core/host_device.h).
// In both orders of its threads: a thread that reads what another writes before the next barrier
// sees it in one order alone.
#pragma once

#include <array>
#include <cstddef>

#include "core/host_device.h"

namespace nf::test {

template <int kCount, bool kReversed = false>
struct HostBlock {
  static constexpr int kThreads = kCount;
  template <class T>
  using PerThread = std::array<T, static_cast<size_t>(kCount)>;

  template <class Body>
  void each(const Body& body) const {
    for (int t = 0; t < kCount; ++t) body(kReversed ? kCount - 1 - t : t);
  }
};

}  // namespace nf::test

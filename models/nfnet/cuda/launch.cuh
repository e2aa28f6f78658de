// How the element-wise kernels of the fused operators are started: a thread for each pack.
#pragma once

#include <cstdint>

namespace nf::model::cuda {

constexpr int kThreads = 256;

__device__ inline int64_t thread_number() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

inline unsigned blocks_for(int64_t elements, int64_t per_thread) {
  const int64_t per_block = per_thread * kThreads;
  return static_cast<unsigned>((elements + per_block - 1) / per_block);
}

// Whether all pointers allow accesses of 16 bytes.
template <class... T>
bool aligned(const T*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

}  // namespace nf::model::cuda

// The device twin of HostBufferOps::add, kept free of ATen and of C++20, so that every nvcc
// compiles it in seconds.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace nf::train {

// For every element i < elements and a = 0, 1, ... additions - 1, in this order: into[a][i] +=
// from[a][i], rounded to nearest as on the host, queued on the stream. into and from are host
// arrays of pointers to device memory; a pointer may occur often, different ones do not overlap.
cudaError_t tree_add(float* const* into, const float* const* from, size_t additions,
                     size_t elements, cudaStream_t stream);

}  // namespace nf::train

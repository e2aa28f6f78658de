// See nccl_tree_add.h. Each thread takes the same element through many additions, so partial sums
// come from the cache instead of memory; the order within an element is the program's order,
// whatever the grid.
#include <algorithm>

#include "trainer/comm/nccl_tree_add.h"

namespace nf::train {
namespace {

constexpr int kBatch =
    128;  // additions a launch; two pointers each fit the 4 KiB of kernel arguments

struct Program {
  float* into[kBatch];
  const float* from[kBatch];
  int additions;
};

__global__ void run_program(Program program, size_t elements) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < elements;
       i += stride)
    for (int a = 0; a < program.additions; ++a)
      program.into[a][i] = __fadd_rn(program.into[a][i], program.from[a][i]);
}

}  // namespace

cudaError_t tree_add(float* const* into, const float* const* from, size_t additions,
                     size_t elements, cudaStream_t stream) {
  if (elements == 0) return cudaSuccess;
  constexpr size_t kThreads = 256, kMostBlocks = 4096;
  const auto blocks =
      static_cast<unsigned>(std::min((elements + kThreads - 1) / kThreads, kMostBlocks));
  for (size_t begin = 0; begin < additions; begin += kBatch) {
    Program program{};
    program.additions = static_cast<int>(std::min<size_t>(kBatch, additions - begin));
    for (int a = 0; a < program.additions; ++a) {
      program.into[a] = into[begin + a];
      program.from[a] = from[begin + a];
    }
    run_program<<<blocks, kThreads, 0, stream>>>(program, elements);
    if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace nf::train

// See fused_update.h and fused_update.cuh: a block a unit, whichever grid, so no bit depends on it.
#include <algorithm>

#include "core/device_block.cuh"
#include "trainer/optim/cuda/fused_update.cuh"
#include "trainer/optim/cuda/kernels.h"

namespace nf::train::cuda {
namespace {

using UnitBlock = DeviceBlock<128>;
using TotalBlock = DeviceBlock<1024>;
constexpr int64_t kMostBlocks = 1 << 20;

__global__ void __launch_bounds__(UnitBlock::kThreads) measure_kernel(FusedUpdate u) {
  __shared__ double scratch[kReduceScratch<UnitBlock>];
  for (int64_t i = blockIdx.x; i < u.count; i += gridDim.x)
    measure_unit(UnitBlock{}, scratch, u.arenas, *u.rates, u.units[i], u.state + i);
}

__global__ void __launch_bounds__(TotalBlock::kThreads) total_kernel(FusedUpdate u) {
  __shared__ double scratch[kReduceScratch<TotalBlock>];
  total_units(TotalBlock{}, scratch, u.units, u.state, u.count, *u.rates, u.totals);
}

__global__ void __launch_bounds__(UnitBlock::kThreads) update_kernel(FusedUpdate u) {
  for (int64_t i = blockIdx.x; i < u.count; i += gridDim.x)
    update_unit(UnitBlock{}, u.arenas, *u.rates, u.units[i], u.state[i], *u.totals);
}

}  // namespace

cudaError_t fused_update(const FusedUpdate& update, cudaStream_t stream) {
  const auto blocks =
      static_cast<unsigned>(std::min(std::max<int64_t>(update.count, 1), kMostBlocks));
  measure_kernel<<<blocks, UnitBlock::kThreads, 0, stream>>>(update);
  total_kernel<<<1, TotalBlock::kThreads, 0, stream>>>(update);
  update_kernel<<<blocks, UnitBlock::kThreads, 0, stream>>>(update);
  return cudaGetLastError();
}

}  // namespace nf::train::cuda

// The fused update's CUDA kernels as loops over a grid of HostBlock.
#pragma once

#include <vector>

#include "tests/support/host_block.h"
#include "trainer/optim/cuda/fused_update.cuh"

namespace nf::test {

// All pointers of `u` are host memory.
template <int kUnitThreads = 128, int kTotalThreads = 1024, bool kReversed = false>
void update_twin(const train::FusedUpdate& u) {
  const HostBlock<kUnitThreads, kReversed> block;
  const HostBlock<kTotalThreads, kReversed> total_block;
  std::vector<double> scratch(kReduceScratch<HostBlock<1024>>);
  for (int64_t i = 0; i < u.count; ++i)
    train::measure_unit(block, scratch.data(), u.arenas, *u.rates, u.units[i], u.state + i);
  train::total_units(total_block, scratch.data(), u.units, u.state, u.count, *u.rates, u.totals);
  for (int64_t i = u.count; i-- > 0;)  // any order of blocks
    train::update_unit(block, u.arenas, *u.rates, u.units[i], u.state[i], *u.totals);
}

}  // namespace nf::test

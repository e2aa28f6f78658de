// The arithmetic of the fused update's CUDA kernels, run by a loop in place of a grid, against the
// update in float64.
#include <gtest/gtest.h>

#include "tests/support/host_block.h"
#include "tests/trainer/optim/update_case.h"
#include "trainer/optim/cuda/fused_update.cuh"

namespace nf::test {
namespace {

template <int kUnitThreads, int kTotalThreads, bool kReversed = false>
train::UpdateTotals twin(UpdateCase& c) {
  const HostBlock<kUnitThreads, kReversed> block;
  const HostBlock<kTotalThreads, kReversed> total_block;
  const train::UpdateArenas arenas = {c.weight.data(), c.grad.data(), c.momentum.data(),
                                      c.with_average ? c.average.data() : nullptr};
  std::vector<double> scratch(kReduceScratch<HostBlock<1024>>);
  std::vector<train::UpdateUnitState> state(c.units.size());
  train::UpdateTotals totals{};
  for (size_t u = 0; u < c.units.size(); ++u)
    train::measure_unit(block, scratch.data(), arenas, c.rates, c.units[u], &state[u]);
  train::total_units(total_block, scratch.data(), c.units.data(), state.data(),
                     static_cast<int64_t>(c.units.size()), c.rates, &totals);
  for (size_t u = c.units.size(); u-- > 0;)  // any order of blocks
    train::update_unit(block, arenas, c.rates, c.units[u], state[u], totals);
  return totals;
}

TEST(CudaUpdateTwin, EqualsTheUpdateInFloat64) { check_fused_update(twin<128, 1024>); }
TEST(CudaUpdateTwin, ForThreadsInAnotherOrder) { check_fused_update(twin<128, 1024, true>); }
TEST(CudaUpdateTwin, ForAnotherBlock) { check_fused_update(twin<32, 64>); }

}  // namespace
}  // namespace nf::test

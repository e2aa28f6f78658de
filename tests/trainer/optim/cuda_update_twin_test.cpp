// The arithmetic of the fused update's CUDA kernels, run by a loop in place of a grid, against the
// update in float64.
#include <gtest/gtest.h>

#include "tests/trainer/optim/update_case.h"
#include "tests/trainer/optim/update_twin.h"

namespace nf::test {
namespace {

template <int kUnitThreads, int kTotalThreads, bool kReversed = false>
train::UpdateTotals twin(UpdateCase& c) {
  std::vector<train::UpdateUnitState> state(c.units.size());
  train::UpdateTotals totals{};
  update_twin<kUnitThreads, kTotalThreads, kReversed>(
      {.arenas = {c.weight.data(), c.grad.data(), c.momentum.data(),
                  c.with_average ? c.average.data() : nullptr},
       .units = c.units.data(),
       .count = static_cast<int64_t>(c.units.size()),
       .rates = &c.rates,
       .state = state.data(),
       .totals = &totals});
  return totals;
}

TEST(CudaUpdateTwin, EqualsTheUpdateInFloat64) { check_fused_update(twin<128, 1024>); }
TEST(CudaUpdateTwin, ForThreadsInAnotherOrder) { check_fused_update(twin<128, 1024, true>); }
TEST(CudaUpdateTwin, ForAnotherBlock) { check_fused_update(twin<32, 64>); }

}  // namespace
}  // namespace nf::test

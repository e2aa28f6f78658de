// Ranks that hold their state once and share the update, against one that does it alone.
#include "trainer/shared_state.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <vector>

#include "core/error.h"
#include "tests/support/golden_values.h"
#include "trainer/comm/local.h"
#include "trainer/comm/threads.h"
#include "trainer/optim/ema.h"
#include "trainer/optim/sgd.h"

namespace nf::train {
namespace {

const std::vector<std::vector<int64_t>> kShapes = {{16, 3, 3, 3}, {16, 1, 1, 1}, {},
                                                   {5, 70001},    {37},          {300, 257}};

void fill(const at::Tensor& x, const char* name, double scale) {
  float* const p = x.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i)
    p[i] = static_cast<float>(scale * test::v(name, static_cast<size_t>(i)));
}

struct Outcome {
  at::Tensor weights, momentum, average;  // copies
  std::vector<StepStats> stats;
};

// Four updates, the third with a gradient that is not finite; of the last it is known before, when
// ranks share it, that it is. shared: null for a rank alone.
Outcome train(Communicator& comm, SharedState* shared) {
  const FlatLayout layout(kShapes);
  const at::Tensor weights = shared ? shared->weights() : layout.make_arena();
  std::vector<Param> params;
  for (size_t i = 0; i < kShapes.size(); ++i) {
    params.push_back({.name = std::string(1, static_cast<char>('a' + i)),
                      .value = layout.view(weights, i),
                      .role = i == 5 ? ParamRole::kClassifierWeight : ParamRole::kConvWeight,
                      .frozen = i == 4});
    if (comm.rank() == 0) fill(params.back().value, params.back().name.c_str(), 0.3);
  }
  Sgd sgd(params, {.weight_decay = 0.01, .agc = {.clip = 0.05}},
          shared ? shared->momentum() : at::Tensor());
  Ema ema(params, 0.9, shared ? shared->average() : at::Tensor());
  if (comm.rank() == 0) ema.restart();
  comm.barrier();
  if (shared) sgd.use_share(shared->update_share());
  Outcome out;
  for (uint64_t t = 0; t < 4; ++t) {
    const at::Tensor gradient = layout.make_arena();
    for (size_t i = 0; i < kShapes.size(); ++i)
      fill(layout.view(gradient, i), "gradient", t == 0 ? 0.2 : 0.02);
    if (t == 2) layout.view(gradient, 3)[4][70000] = std::numeric_limits<float>::infinity();
    out.stats.push_back(sgd.step({.lr = 0.1,
                                  .gradient = gradient,
                                  .scale = 0.25,
                                  .finite = shared && t == 3,
                                  .average = &ema,
                                  .index = t}));
    // As in a run, where the sum of gradients comes between two updates.
    comm.barrier();
  }
  out.weights = weights.clone();
  out.momentum = sgd.momentum_arena().clone();
  out.average = ema.arena().clone();
  comm.barrier();  // the memory is that of rank 0's object
  return out;
}

TEST(SharedState, ChangesNoBit) {
  LocalCommunicator local;
  const Outcome alone = train(local, nullptr);
  ASSERT_GT(alone.stats[0].clipped, 0);
  ASSERT_FALSE(alone.stats[2].finite);
  for (const int world : {2, 3, 4}) {
    ThreadsGroup group(world, 30);
    group.run([&](Communicator& comm) {
      const auto shared = SharedState::make(comm, FlatLayout(kShapes));
      ASSERT_TRUE(shared);
      const Outcome one = train(comm, shared.get());
      EXPECT_TRUE(one.weights.equal(alone.weights));
      EXPECT_TRUE(one.momentum.equal(alone.momentum));
      EXPECT_TRUE(one.average.equal(alone.average));
      for (size_t t = 0; t < alone.stats.size(); ++t) {
        const StepStats &a = alone.stats[t], &b = one.stats[t];
        EXPECT_EQ(a.finite, b.finite);
        EXPECT_EQ(a.first_non_finite, b.first_non_finite);
        EXPECT_EQ(a.units, b.units);
        EXPECT_EQ(a.clipped, b.clipped);
        if (a.finite) {
          EXPECT_EQ(a.grad_norm, b.grad_norm);
          EXPECT_EQ(a.grad_norm_after_agc, b.grad_norm_after_agc);
        }
      }
    });
  }
}

TEST(SharedState, ARankThatDoesNotComeIsNamed) {
  ThreadsGroup group(2, 0.2);
  std::string message;
  group.run([&](Communicator& comm) {
    const auto shared = SharedState::make(comm, FlatLayout(kShapes));
    if (comm.rank() == 1) return;
    try {
      shared->update_share().meet();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kRank);
      message = e.what();
    }
  });
  EXPECT_NE(message.find("rank 1 did not do its part"), std::string::npos) << message;
}

}  // namespace
}  // namespace nf::train

// The promise of the gradient sum: the same bits for every number of ranks, against a serial
// oracle, on numbers for which the usual sum in rank order gives other bits.
#include "trainer/comm/grad_reducer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <mutex>

#include "core/error.h"
#include "tests/trainer/comm/oracle.h"
#include "trainer/comm/local.h"
#include "trainer/comm/threads.h"

namespace nf::test {
namespace {

using train::Communicator;
using train::GradReducer;
using train::LocalCommunicator;
using train::Reduction;
using train::ThreadsGroup;

// One step; returns a copy of the sum. Gradients are written from the end to the front in `pieces`,
// each announced, as a backward pass does.
std::vector<float> reduce(GradReducer& reducer, const Communicator& comm,
                          const std::vector<std::vector<float>>& all, size_t pieces = 1) {
  const auto [begin, end] = train::micro_batch_range(all.size(), comm.rank(), comm.size());
  for (uint64_t m = begin; m < end; ++m) {
    const auto buffer = reducer.buffer();
    std::fill(buffer.begin(), buffer.end(), 1e30f);  // what is exchanged too early shows
    const size_t n = buffer.size(), piece = n / pieces + 1;
    for (size_t last = n; last > 0;) {
      const size_t from = last > piece ? last - piece : 0;
      std::copy(all[m].begin() + static_cast<std::ptrdiff_t>(from),
                all[m].begin() + static_cast<std::ptrdiff_t>(last), buffer.begin() + from);
      reducer.ready_from(from);
      last = from;
    }
    reducer.add(m);
  }
  const auto total = reducer.finish();
  return {total.begin(), total.end()};
}

// What a library's all-reduce does: every rank's own serial sum, then those in rank order.
std::vector<float> naive_sum(const std::vector<std::vector<float>>& all, int world) {
  std::vector<float> total(all[0].size(), 0.0f);
  for (int rank = 0; rank < world; ++rank) {
    const auto [begin, end] = train::micro_batch_range(all.size(), rank, world);
    std::vector<float> own(total.size(), 0.0f);
    for (uint64_t m = begin; m < end; ++m)
      for (size_t i = 0; i < own.size(); ++i) own[i] += all[m][i];
    for (size_t i = 0; i < own.size(); ++i) total[i] += own[i];
  }
  return total;
}

class Exact : public testing::TestWithParam<uint64_t> {};

TEST_P(Exact, EveryNumberOfRanksGivesTheOraclesBits) {
  const uint64_t v = GetParam();
  const size_t elements = 1003;  // no number of ranks divides it
  const auto all = gradients(v, elements);
  const auto expected = oracle_gradient(all);
  int naive_differs = 0;
  for (int world = 1; world <= static_cast<int>(v); ++world) {
    ThreadsGroup group(world);
    group.run([&](Communicator& comm) {
      // Buckets that the elements fill evenly, unevenly and not at all.
      for (const auto& [bucket, shared] : {std::pair<size_t, bool>{64, true},
                                           {64, false},
                                           {1003, true},
                                           {1003, false},
                                           {5000, true}}) {
        GradReducer reducer(comm, v, elements,
                            {.bucket_elements = bucket, .shared_memory = shared});
        EXPECT_EQ(reducer.in_shared_memory(), shared && world > 1);
        for (int step = 0; step < 2; ++step)  // buffers are used again
          EXPECT_TRUE(same_bits(reduce(reducer, comm, all), expected))
              << "V " << v << ", W " << world << ", rank " << comm.rank() << ", bucket " << bucket;
      }
    });
    if (!same_bits(naive_sum(all, world), expected)) ++naive_differs;
  }
  if (v >= 5) {
    EXPECT_GT(naive_differs, 0) << "the test's numbers do not show the order";
  }
}

INSTANTIATE_TEST_SUITE_P(MicroBatches, Exact, testing::Values(1, 2, 3, 5, 8, 12, 16));

// What all ranks say of their parts of the sum, together.
bool known_to_be_finite(const std::vector<std::vector<float>>& all, int world,
                        const train::ReducerOptions& options) {
  ThreadsGroup group(world);
  std::mutex mutex;
  bool finite = true;
  group.run([&](Communicator& comm) {
    GradReducer reducer(comm, all.size(), all.front().size(), options);
    for (int step = 0; step < 2; ++step) reduce(reducer, comm, all);
    const std::lock_guard lock(mutex);
    finite = finite && reducer.finite();
  });
  return finite;
}

TEST(GradReducer, KnowsWhetherTheSumIsFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const uint64_t v : {2, 3, 8}) {
    const auto good = gradients(v, 1003);
    auto with_nan = good, with_infinity = good, overflowing = good;
    with_nan[v - 1][0] = std::numeric_limits<float>::quiet_NaN();
    with_infinity[0][1002] = -infinity;
    overflowing[0][500] = overflowing[1][500] = 3e38F;
    for (const int world : {1, 2, 3}) {
      if (static_cast<uint64_t>(world) > v) continue;
      for (const bool shared : {true, false}) {
        const train::ReducerOptions options{.bucket_elements = 64, .shared_memory = shared};
        EXPECT_TRUE(known_to_be_finite(good, world, options)) << v << ' ' << world << ' ' << shared;
        for (const auto& bad : {with_nan, with_infinity, overflowing})
          EXPECT_FALSE(known_to_be_finite(bad, world, options)) << v << ' ' << world;
      }
      EXPECT_FALSE(known_to_be_finite(good, world, {.reduction = Reduction::kFixed64}));
      if (world > 1) {  // nobody looked
        EXPECT_FALSE(known_to_be_finite(good, world, {.reduction = Reduction::kFast}));
      }
    }
  }
}

TEST(GradReducer, OneMicroBatchIsFiniteIfItsWriterSaysSo) {
  LocalCommunicator alone;
  GradReducer reducer(alone, 1, 10);
  for (const bool finite : {true, false}) {
    std::ranges::fill(reducer.buffer(), 1.0F);
    reducer.add(0, finite);
    reducer.finish();
    EXPECT_EQ(reducer.finite(), finite);
  }
}

TEST(GradReducer, ExchangesWhileTheGradientIsWritten) {
  const uint64_t v = 8;
  const auto all = gradients(v, 5000);
  const auto expected = oracle_gradient(all);
  for (const int world : {2, 3, 5})
    for (const bool shared : {true, false}) {
      ThreadsGroup group(world);
      group.run([&](Communicator& comm) {
        GradReducer reducer(comm, v, 5000, {.bucket_elements = 256, .shared_memory = shared});
        for (size_t step = 0; step < 20; ++step)
          EXPECT_TRUE(same_bits(reduce(reducer, comm, all, 7 + step), expected));
      });
    }
}

TEST(GradReducer, IntegersAgreeWithTheTreeToRoundingAndWithThemselvesToTheBit) {
  const auto all = gradients(12, 700);
  std::vector<float> alone;
  for (const int world : {1, 2, 5, 12}) {
    ThreadsGroup group(world);
    std::mutex mutex;
    group.run([&](Communicator& comm) {
      GradReducer reducer(comm, 12, 700, {.reduction = Reduction::kFixed64});
      const auto total = reduce(reducer, comm, all);
      const std::lock_guard lock(mutex);
      if (alone.empty()) alone = total;
      EXPECT_TRUE(same_bits(total, alone));
      for (size_t i = 0; i < total.size(); ++i) {
        double exact = 0, magnitude = 0;
        for (const auto& g : all) {
          exact += static_cast<double>(g[i]);
          magnitude += std::abs(static_cast<double>(g[i]));
        }
        EXPECT_NEAR(total[i], exact, magnitude * 1e-7);
      }
    });
  }
}

TEST(GradReducer, AStepThatEndsEarlyDoesNotHang) {
  ThreadsGroup group(2);
  EXPECT_THROW(group.run([&](Communicator& comm) {
    GradReducer reducer(comm, 2, 5000, {.bucket_elements = 64});
    const auto buffer = reducer.buffer();
    std::fill(buffer.begin(), buffer.end(), 1.0f);
    if (comm.rank() == 0) throw std::runtime_error("backward failed");
    reducer.add(1);
    reducer.finish();
  }),
               std::exception);
}

TEST(GradReducer, NaiveSumsChangeWithTheNumberOfRanks) {
  const auto all = gradients(16, 500);
  EXPECT_FALSE(same_bits(naive_sum(all, 1), naive_sum(all, 2)));
  EXPECT_FALSE(same_bits(naive_sum(all, 2), naive_sum(all, 4)));
}

TEST(GradReducer, TinyAndEmptyGradients) {
  for (const size_t elements : {size_t{0}, size_t{1}, size_t{17}}) {
    const auto all = gradients(8, elements);
    const auto expected = oracle_gradient(all);
    ThreadsGroup group(5);  // more ranks than slices
    group.run([&](Communicator& comm) {
      GradReducer reducer(comm, 8, elements);
      EXPECT_TRUE(same_bits(reduce(reducer, comm, all), expected));
    });
  }
}

TEST(GradReducer, FastSumsToRounding) {
  const auto all = gradients(8, 300);
  for (const int world : {1, 3, 4}) {
    ThreadsGroup group(world);
    group.run([&](Communicator& comm) {
      GradReducer reducer(comm, 8, 300, {.reduction = Reduction::kFast});
      const auto total = reduce(reducer, comm, all);
      for (size_t i = 0; i < total.size(); ++i) {
        double exact = 0.0, magnitude = 0.0;
        for (const auto& g : all) {
          exact += static_cast<double>(g[i]);
          magnitude += std::abs(static_cast<double>(g[i]));
        }
        EXPECT_NEAR(total[i], exact, magnitude * 8 * 6e-8);
      }
    });
  }
}

TEST(GradReducer, KeepsFewBuffers) {
  for (const auto& [v, world] : {std::pair<uint64_t, int>{16, 1}, {16, 2}, {16, 4}, {64, 4}}) {
    const auto all = gradients(v, 32);
    ThreadsGroup group(world);
    group.run([&, v = v, world = world](Communicator& comm) {
      GradReducer reducer(comm, v, 32);
      for (int step = 0; step < 3; ++step) reduce(reducer, comm, all);
      EXPECT_LE(reducer.buffers(),
                static_cast<size_t>(std::bit_width(v / static_cast<uint64_t>(world) - 1)) + 1);
    });
  }
}

TEST(GradReducer, BuffersAreAlignedAndTheResultLastsUntilTheNextBuffer) {
  LocalCommunicator comm;
  GradReducer reducer(comm, 2, 5);
  for (uint64_t m = 0; m < 2; ++m) {
    const auto buffer = reducer.buffer();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    EXPECT_EQ(buffer.data(), reducer.buffer().data());  // the same until it is added
    std::fill(buffer.begin(), buffer.end(), static_cast<float>(m + 1));
    reducer.add(m);
  }
  EXPECT_THAT(reducer.finish(), testing::Each(3.0f));
}

TEST(GradReducer, WrongUseIsRefused) {
  LocalCommunicator comm;
  GradReducer reducer(comm, 2, 4);
  EXPECT_THROW(reducer.add(0), std::logic_error);  // no buffer
  reducer.buffer();
  EXPECT_THROW(reducer.add(1), std::logic_error);  // out of order
  reducer.add(0);
  EXPECT_THROW(reducer.finish(), std::logic_error);  // one micro-batch is missing
}

TEST(GradReducer, MoreRanksThanMicroBatchesIsAUsageError) {
  ThreadsGroup group(3);
  try {
    GradReducer reducer(group.communicator(0), 2, 4);
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kUsage);
    EXPECT_EQ(e.where(), "batch.micro_batches");
  }
}

TEST(MicroBatchRange, CoversAllWithoutGapsForEveryWorld) {
  for (uint64_t v = 1; v <= 40; ++v)
    for (int world = 1; world <= static_cast<int>(v); ++world) {
      uint64_t at = 0;
      for (int rank = 0; rank < world; ++rank) {
        const auto [begin, end] = train::micro_batch_range(v, rank, world);
        EXPECT_EQ(begin, at);
        EXPECT_GT(end, begin);
        at = end;
      }
      EXPECT_EQ(at, v);
    }
}

TEST(ParseReduction, KnowsItsWords) {
  EXPECT_EQ(train::parse_reduction("exact"), Reduction::kExact);
  EXPECT_EQ(train::parse_reduction("fast"), Reduction::kFast);
  EXPECT_EQ(train::parse_reduction("fixed64"), Reduction::kFixed64);
  EXPECT_THROW(train::parse_reduction("Exact"), Error);
}

TEST(HostBufferOps, ManyBlocksAndAWholeTree) {
  train::HostBufferOps ops;
  const size_t n = 10007, v = 6;
  const auto all = gradients(v, n);
  std::vector<std::shared_ptr<float[]>> memory;
  std::vector<float*> operands;
  std::vector<train::TreeNode> leaves;
  for (size_t m = 0; m < v; ++m) {
    memory.push_back(ops.allocate(n));
    operands.push_back(memory.back().get());
    ops.copy(operands.back(), all[m].data(), n);
    leaves.push_back({0, m});
  }
  ops.add(operands, train::order_of_additions(leaves, v), n);
  EXPECT_TRUE(same_bits({operands[0], n}, oracle_gradient(all)));
}

}  // namespace
}  // namespace nf::test

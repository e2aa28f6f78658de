// Sampler: every sample exactly `repeat` times per epoch in every order and for awkward sizes, an
// exact inverse, ranges equal to single positions, windows that are honoured, safe use from many
// threads, frozen bits.
#include "data_pipeline/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "core/rng.h"

namespace nf::data {
namespace {

void expect_exact(const SamplerOptions& options, uint64_t epochs) {
  const Sampler sampler(options);
  const uint64_t per_epoch = sampler.positions_per_epoch();
  std::vector<uint64_t> all(per_epoch * epochs);
  sampler.fill(0, all);
  for (uint64_t e = 0; e < epochs; ++e) {
    std::vector<uint64_t> count(options.samples);
    for (uint64_t p = e * per_epoch; p < (e + 1) * per_epoch; ++p) {
      ASSERT_LT(all[p], options.samples);
      ++count[all[p]];
      const SampleAt at = sampler.at(p);
      ASSERT_EQ(at.sample, all[p]) << "position " << p;
      ASSERT_EQ(at.epoch, e);
      const uint64_t first = sampler.position_of(all[p], e);
      ASSERT_LE(first, p);
      ASSERT_LT(p - first, options.repeat) << "copies are adjacent";
      ASSERT_EQ(all[first], all[p]);
    }
    for (const uint64_t c : count) ASSERT_EQ(c, options.repeat);
  }
}

TEST(Sampler, GlobalOrderIsExact) {
  for (const uint64_t n : {1u, 2u, 7u, 100u, 4096u, 4097u, 5003u}) {
    for (const uint64_t repeat : {1u, 3u, 4u}) {
      expect_exact({.samples = n, .seed = 5, .repeat = repeat}, 2);
    }
  }
}

TEST(Sampler, UnshuffledOrderIsExact) {
  expect_exact({.samples = 11, .seed = 5, .shuffle = Shuffle::kNone, .repeat = 2}, 3);
}

TEST(Sampler, WindowedOrderIsExactForAwkwardSizes) {
  // N, samples a shard, shards a window: below one shard, one short shard, whole windows,
  // remainders of every kind.
  const uint64_t cases[][3] = {
      {1, 10, 4},      {9, 10, 4},     {10, 10, 4},  {11, 10, 4},
      {40, 10, 4},     {41, 10, 4},    {43, 10, 4},  {79, 10, 4},
      {80, 10, 4},     {123, 10, 4},   {1000, 7, 3}, {1000, 1, 1},
      {1000, 1, 64},   {1000, 999, 2}, {997, 13, 1}, {997, 13, 1000000000000},
      {6007, 1000, 5}, {9001, 1500, 3}};
  for (const auto& [n, shard, window] : cases) {
    SCOPED_TRACE(testing::Message() << n << " samples, " << shard << " a shard, window " << window);
    for (uint64_t seed = 0; seed < 4; ++seed) {
      expect_exact({.samples = n,
                    .seed = seed,
                    .shuffle = Shuffle::kWindowed,
                    .shard_samples = shard,
                    .window_shards = window},
                   2);
    }
    expect_exact({.samples = n,
                  .seed = 9,
                  .shuffle = Shuffle::kWindowed,
                  .repeat = 3,
                  .shard_samples = shard,
                  .window_shards = window},
                 1);
  }
}

TEST(Sampler, WindowedOrderIsExactForEverySmallShape) {
  for (uint64_t n = 1; n <= 40; ++n)
    for (uint64_t shard = 1; shard <= 12; ++shard)
      for (uint64_t window = 1; window <= 6; ++window)
        expect_exact({.samples = n,
                      .seed = n,
                      .shuffle = Shuffle::kWindowed,
                      .repeat = 1 + n % 3,
                      .shard_samples = shard,
                      .window_shards = window},
                     1);
}

// Where no table of all positions is possible: the inverse, and ranges across the seams of groups.
TEST(Sampler, WindowedOrderOfHugeDataSetsIsInvertible) {
  for (const uint64_t n : {4000000007ull, 1000000000039ull, (1ull << 40) + 1}) {
    for (const uint64_t shard : {8192ull, 1000ull, 8191ull}) {
      for (const uint64_t window : {1ull, 16ull, 5000ull}) {
        const EpochOrder order({.samples = n,
                                .seed = 3,
                                .shuffle = Shuffle::kWindowed,
                                .shard_samples = shard,
                                .window_shards = window},
                               7);
        PositionRng rng(1, Stream::kTest, n + shard + window);
        for (int draw = 0; draw < 100; ++draw) {
          const uint64_t at = draw < 2 ? (draw == 0 ? 0 : n - 1) : rng.below(n);
          ASSERT_EQ(order.rank_of(order.at(at)), at);
          ASSERT_EQ(order.at(order.rank_of(at)), at);
        }
        for (int draw = 0; draw < 4; ++draw) {
          const uint64_t seam = (1 + rng.below(n / shard / window - 1)) * shard * window;
          std::vector<uint64_t> ids(300);
          order.fill(seam - 150, ids);
          for (size_t k = 0; k < ids.size(); ++k) ASSERT_EQ(ids[k], order.at(seam - 150 + k));
        }
      }
    }
  }
}

// Fine-tuning's batches: b / m distinct samples, each m times, through all epochs.
TEST(Sampler, RepeatedBatchesHoldEachOfTheirSamplesRepeatTimes) {
  for (const Shuffle shuffle : {Shuffle::kGlobal, Shuffle::kWindowed}) {
    const Sampler sampler({.samples = 101,
                           .seed = 2,
                           .shuffle = shuffle,
                           .repeat = 4,
                           .shard_samples = 10,
                           .window_shards = 3});
    std::vector<uint64_t> batch(32);
    for (uint64_t step = 0; step < 60; ++step) {
      sampler.fill(step * 32, batch);
      std::map<uint64_t, int> count;
      for (const uint64_t sample : batch) ++count[sample];
      // Two epochs may meet inside a batch, and a sample may then stand in both.
      const bool seam = step * 32 / 404 != (step * 32 + 31) / 404;
      EXPECT_TRUE(seam ? count.size() >= 4 : count.size() == 8) << step;
      for (const auto& [sample, times] : count) EXPECT_EQ(times % 4, 0);
    }
  }
}

TEST(Sampler, WindowedOrderReadsFewShardsAtATime) {
  const Sampler sampler({.samples = 10000,
                         .seed = 1,
                         .shuffle = Shuffle::kWindowed,
                         .shard_samples = 100,
                         .window_shards = 4});
  std::vector<uint64_t> epoch(10000);
  sampler.fill(0, epoch);
  for (uint64_t window = 0; window < 25; ++window) {
    std::set<uint64_t> shards;
    bool sorted = true;
    for (uint64_t k = 0; k < 400; ++k) {
      shards.insert(epoch[window * 400 + k] / 100);
      sorted = sorted && (k == 0 || epoch[window * 400 + k] > epoch[window * 400 + k - 1]);
    }
    EXPECT_EQ(shards.size(), 4u) << "window " << window;
    EXPECT_FALSE(sorted);
  }
}

TEST(Sampler, ShortGroupDoesNotAlwaysComeLast) {
  SamplerOptions options{.samples = 1050,
                         .seed = 1,
                         .shuffle = Shuffle::kWindowed,
                         .shard_samples = 100,
                         .window_shards = 2};
  std::set<uint64_t> windows;  // in which the short shard's samples are seen
  const Sampler sampler(options);
  for (uint64_t epoch = 0; epoch < 50; ++epoch) {
    windows.insert((sampler.position_of(1049, epoch) % 1050) / 200);
  }
  EXPECT_EQ(windows.size(), 6u);
}

TEST(Sampler, RangesThatStraddleEpochsEqualSinglePositions) {
  for (const Shuffle shuffle : {Shuffle::kNone, Shuffle::kGlobal, Shuffle::kWindowed}) {
    const Sampler sampler({.samples = 103,
                           .seed = 2,
                           .shuffle = shuffle,
                           .repeat = 3,
                           .shard_samples = 10,
                           .window_shards = 3});
    PositionRng rng(1, Stream::kTest, 0);
    for (int draw = 0; draw < 200; ++draw) {
      std::vector<uint64_t> out(rng.below(1000));
      const uint64_t begin = rng.below(5000);
      sampler.fill(begin, out);
      for (size_t k = 0; k < out.size(); ++k) ASSERT_EQ(out[k], sampler.at(begin + k).sample);
    }
  }
}

TEST(Sampler, FarPositionsOfHugeDataSets) {
  for (const Shuffle shuffle : {Shuffle::kGlobal, Shuffle::kWindowed}) {
    const Sampler sampler({.samples = 4000000007, .seed = 2, .shuffle = shuffle});
    for (const uint64_t epoch : {0ull, 1ull, 1000000ull}) {
      for (const uint64_t sample : {0ull, 1ull, 8191ull, 8192ull, 3999999999ull, 4000000006ull}) {
        const uint64_t position = sampler.position_of(sample, epoch);
        const SampleAt at = sampler.at(position);
        EXPECT_EQ(at.sample, sample);
        EXPECT_EQ(at.epoch, epoch);
      }
    }
  }
}

TEST(Sampler, EpochsAndSeedsHaveTheirOwnOrders) {
  const auto epoch = [](uint64_t seed, uint64_t number) {
    std::vector<uint64_t> out(1000);
    Sampler({.samples = 1000, .seed = seed}).fill(number * 1000, out);
    return out;
  };
  EXPECT_NE(epoch(1, 0), epoch(1, 1));
  EXPECT_NE(epoch(1, 0), epoch(2, 0));
  EXPECT_NE(epoch(1, 1), epoch(2, 0));
  EXPECT_EQ(epoch(3, 4), epoch(3, 4));
}

TEST(Sampler, ManyThreadsSeeOneOrder) {
  for (const Shuffle shuffle : {Shuffle::kGlobal, Shuffle::kWindowed}) {
    const Sampler sampler(
        {.samples = 501, .seed = 3, .shuffle = shuffle, .shard_samples = 50, .window_shards = 3});
    std::vector<uint64_t> expected(501 * 4);
    sampler.fill(0, expected);
    std::vector<std::vector<uint64_t>> got(4, std::vector<uint64_t>(expected.size()));
    std::vector<std::thread> threads;
    for (size_t t = 0; t < got.size(); ++t) {
      threads.emplace_back([&, t] {
        // Each thread begins elsewhere, so that they fight over the kept epoch.
        for (size_t k = 0; k < expected.size(); ++k) {
          const size_t p = (k + t * 501) % expected.size();
          got[t][p] = sampler.at(p).sample;
        }
      });
    }
    for (auto& thread : threads) thread.join();
    for (const auto& order : got) EXPECT_EQ(order, expected);
  }
}

TEST(Sampler, PositionsInRun) {
  EXPECT_EQ(positions_in_run(0.25, 50000), 12500u);
  EXPECT_EQ(positions_in_run(0.25, 10), 3u);  // 2.5 rounds away from zero
  EXPECT_EQ(positions_in_run(3, 1281167), 3843501u);
  EXPECT_EQ(positions_in_run(20, 4000000007), 80000000140u);
  EXPECT_EQ(positions_in_run(0, 10), 0u);
  EXPECT_THROW(positions_in_run(-1, 10), std::logic_error);
  EXPECT_THROW(positions_in_run(1e30, 10), std::logic_error);
}

TEST(Sampler, BadOptionsAreRefused) {
  EXPECT_THROW(Sampler(SamplerOptions{}), std::logic_error);
  EXPECT_THROW(Sampler({.samples = 10, .repeat = 0}), std::logic_error);
  EXPECT_THROW(Sampler({.samples = uint64_t{1} << 62, .repeat = 4}), std::logic_error);
  EXPECT_THROW(Sampler({.samples = 10}).position_of(10, 0), std::logic_error);
}

// Runs are reproducible across versions only while these hold.
TEST(Sampler, GoldenValues) {
  const auto eight = [](const SamplerOptions& options, uint64_t begin) {
    std::vector<uint64_t> out(8);
    Sampler(options).fill(begin, out);
    return out;
  };
  using Eight = std::vector<uint64_t>;
  EXPECT_EQ(eight({.samples = 600, .seed = 0}, 0), (Eight{494, 172, 208, 122, 506, 360, 30, 409}));
  EXPECT_EQ(eight({.samples = 50000, .seed = 7}, 50000 - 4),
            (Eight{48304, 16133, 36975, 3035, 46015, 47954, 10428, 40398}));
  EXPECT_EQ(eight({.samples = 1281167, .seed = 1, .repeat = 4}, 1281167ull * 4 * 2 + 2),
            (Eight{764482, 764482, 408766, 408766, 408766, 408766, 793881, 793881}));
  EXPECT_EQ(eight({.samples = 1281167, .seed = 1, .shuffle = Shuffle::kWindowed}, 0),
            (Eight{905201, 1141980, 565474, 566842, 1190848, 565654, 370908, 372787}));
}

}  // namespace
}  // namespace nf::data

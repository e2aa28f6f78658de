// The loader's promise: batches are a function of (data set, seed, plan). Their SHA-256 is the same
// for every number of ranks, threads and micro-batches in flight and after any seek; every position
// of a run is handed out once; a damaged sample changes nothing but its own slot.
#include "data_pipeline/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "core/hash.h"
#include "tests/data_pipeline/drawn_dataset.h"

namespace nf::data {
namespace {

constexpr uint64_t kSamples = 43, kShard = 20, kSeed = 5;

// One packed set for all tests of this program.
class LoaderTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new test::TempDir;
    path_ = test::draw_dataset(*folder_, kSamples, kShard);
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }

  static AugmentOptions small() {
    AugmentOptions options;
    options.image_size = 16;
    return options;
  }

  static test::TempDir* folder_;
  static std::filesystem::path path_;

  const ShardDataset set_{path_, "train"};
  const Sampler sampler_{{.samples = kSamples, .seed = kSeed}};
};
test::TempDir* LoaderTest::folder_ = nullptr;
std::filesystem::path LoaderTest::path_;

template <class T>
Bytes bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span<const T>(values));
}

// Everything of a micro-batch that reaches training. `k` differs between worlds and is left out.
std::string digest(const MicroBatch& batch) {
  Sha256 sha;
  const std::vector<uint64_t> head = {batch.range.begin, batch.range.end,
                                      static_cast<uint64_t>(batch.count),
                                      static_cast<uint64_t>(batch.image_size)};
  sha.update(bytes_of(head));
  sha.update(bytes_of(batch.pixels));
  sha.update(bytes_of(batch.samples));
  sha.update(bytes_of(batch.weights));
  sha.update(bytes_of(batch.labels));
  sha.update(bytes_of(batch.label_offset));
  for (const BadSample& bad : batch.bad) sha.update(as_bytes(bad.reason));
  return sha.hex();
}

// 3 epochs of 43 samples in batches of 16 in 8 micro-batches: a partial last batch with empty
// micro-batches.
TrainPlan three_epochs(uint64_t rank = 0, uint64_t world = 1) {
  return {.batch_size = 16,
          .micro_batches = 8,
          .end_position = 3 * kSamples,
          .rank = rank,
          .world = world};
}

// Digest of every (step, micro-batch), of all ranks together, in order.
std::vector<std::string> digests(const ShardDataset& set, const Sampler& sampler,
                                 const AugmentOptions& augment, uint64_t world,
                                 const LoaderOptions& options) {
  const uint64_t per_step = three_epochs().per_step();
  std::vector<std::string> all(three_epochs().steps() * per_step);
  for (uint64_t rank = 0; rank < world; ++rank) {
    const TrainPlan plan = three_epochs(rank, world);
    Loader loader(set, sampler, plan.plan(), augment, kSeed, options);
    uint64_t k = 0;
    while (auto batch = loader.next()) {
      EXPECT_EQ(batch->k, k);
      all[k / plan.per_step() * per_step + plan.first() + k % plan.per_step()] = digest(*batch);
      loader.recycle(std::move(*batch));
      ++k;
    }
    EXPECT_EQ(k, plan.steps() * plan.per_step());
  }
  return all;
}

TEST_F(LoaderTest, SameBatchesForEveryWorldThreadsAndPrefetch) {
  const auto expected = digests(set_, sampler_, small(), 1, {.workers = 0, .prefetch = 1});
  for (const std::string& d : expected) EXPECT_FALSE(d.empty());
  for (const uint64_t world : {1, 2, 3, 4, 5, 7, 8}) {
    EXPECT_EQ(digests(set_, sampler_, small(), world, {.workers = 2, .prefetch = 3}), expected)
        << world;
  }
  for (int workers = 0; workers <= 4; ++workers) {
    for (const int prefetch : {1, 2, 5, 8}) {
      EXPECT_EQ(digests(set_, sampler_, small(), 1, {.workers = workers, .prefetch = prefetch}),
                expected)
          << workers << " workers, prefetch " << prefetch;
    }
  }
}

TEST_F(LoaderTest, MappedShardsGiveTheSameBatches) {
  const auto expected = digests(set_, sampler_, small(), 1, {.workers = 0, .prefetch = 1});
  for (const uint64_t copies : {0, 5}) {
    const ShardDataset mapped(path_, "train", {.mapped = true, .copies_before_map = copies});
    for (const int workers : {0, 1, 3})
      EXPECT_EQ(digests(mapped, sampler_, small(), 2, {.workers = workers}), expected) << workers;
  }
}

// The shard shrinks in the middle of the run: the same samples are bad as with copies, for the same
// reason, and their slots look the same.
TEST_F(LoaderTest, AShardCutWhileItIsMappedGivesTheSameBatches) {
  std::vector<std::string> expected;
  for (const bool mapped : {false, true}) {
    const test::TempDir copy;
    std::filesystem::copy(path_, copy / "set");
    const ShardDataset set(copy / "set", "train", {.mapped = mapped, .copies_before_map = 0});
    Loader loader(set, sampler_, three_epochs().plan(), small(), kSeed, {.workers = 0});
    std::vector<std::string> seen;
    size_t bad = 0;
    while (const auto batch = loader.next()) {
      seen.push_back(digest(*batch));
      bad += batch->bad.size();
      const auto shard = copy / "set/train-00001.h5";
      if (seen.size() == 25)
        std::filesystem::resize_file(shard, std::filesystem::file_size(shard) / 2);
    }
    EXPECT_GT(bad, 10u);
    if (!mapped) expected = seen;
    EXPECT_EQ(seen, expected);
  }
}

// The same at any moment of reading and decoding: no slot that counts ever has other pixels.
TEST_F(LoaderTest, AShardCutWhileItIsDecodedNeverGivesWrongPixels) {
  std::vector<std::vector<uint8_t>> expected;
  Loader intact(set_, sampler_, three_epochs().plan(), small(), kSeed, {});
  while (const auto batch = intact.next()) expected.push_back(batch->pixels);
  const test::TempDir copy;
  std::filesystem::copy(path_, copy / "set");
  const auto shard = copy / "set/train-00001.h5";
  const auto whole = std::filesystem::file_size(shard);
  size_t bad = 0, good = 0;
  for (int round = 0; round < 30; ++round) {
    std::filesystem::copy_file(path_ / "train-00001.h5", shard,
                               std::filesystem::copy_options::overwrite_existing);
    const ShardDataset set(copy / "set", "train", {.mapped = true, .copies_before_map = 0});
    Loader loader(set, sampler_, three_epochs().plan(), small(), kSeed, {.workers = 3});
    std::jthread cutter([&, round] {
      std::this_thread::sleep_for(std::chrono::microseconds(300 * round));
      std::filesystem::resize_file(shard, whole / 3);
    });
    for (const auto& pixels : expected) {
      const auto batch = loader.next();
      ASSERT_TRUE(batch.has_value());
      for (size_t i = 0; i < batch->samples.size(); ++i) {
        const bool equal = std::equal(pixels.begin() + static_cast<std::ptrdiff_t>(i * 768),
                                      pixels.begin() + static_cast<std::ptrdiff_t>((i + 1) * 768),
                                      batch->pixels.begin() + static_cast<std::ptrdiff_t>(i * 768));
        EXPECT_EQ(equal, batch->weights[i] == 1.0f);
        ++(equal ? good : bad);
      }
    }
  }
  EXPECT_GT(bad, 100u);
  EXPECT_GT(good, 100u);
}

TEST_F(LoaderTest, SeeksGiveTheSameBatches) {
  const auto expected = digests(set_, sampler_, small(), 1, {.workers = 0, .prefetch = 1});
  for (const int workers : {0, 1, 3}) {
    Loader loader(set_, sampler_, three_epochs().plan(), small(), kSeed,
                  {.workers = workers, .prefetch = 4});
    PositionRng rng(1, Stream::kTest, 0);
    for (int draw = 0; draw < 60; ++draw) {
      const uint64_t k = rng.below(expected.size());
      loader.seek(k);
      for (uint64_t n = rng.below(4); n > 0; --n) {
        const uint64_t at = k + n - 1;
        loader.seek(at);
        for (uint64_t next = at; next < std::min<uint64_t>(at + 2, expected.size()); ++next) {
          EXPECT_EQ(digest(*loader.next()), expected[next]);
        }
      }
    }
    loader.seek(expected.size());
    EXPECT_FALSE(loader.next().has_value());
    EXPECT_FALSE(loader.next().has_value());
    loader.seek(0);
    EXPECT_EQ(digest(*loader.next()), expected[0]);
  }
}

TEST_F(LoaderTest, EveryPositionOnceAndEverySampleOncePerEpoch) {
  for (const uint64_t world : {1, 3, 8}) {
    std::map<uint64_t, uint64_t> sample_at;
    uint64_t empty = 0;
    for (uint64_t rank = 0; rank < world; ++rank) {
      Loader loader(set_, sampler_, three_epochs(rank, world).plan(), small(), kSeed, {});
      while (const auto batch = loader.next()) {
        empty += batch->count == 0;
        EXPECT_EQ(batch->label_offset.size(), static_cast<size_t>(batch->count) + 1);
        for (size_t i = 0; i < batch->samples.size(); ++i) {
          EXPECT_TRUE(sample_at.emplace(batch->range.begin + i, batch->samples[i]).second);
        }
      }
    }
    EXPECT_EQ(sample_at.size(), 3 * kSamples);
    EXPECT_EQ(sample_at.rbegin()->first, 3 * kSamples - 1);
    EXPECT_EQ(empty, 7u) << "129 positions: the last batch holds 1 in the first of 8 micro-batches";
    for (uint64_t epoch = 0; epoch < 3; ++epoch) {
      std::set<uint64_t> seen;
      for (uint64_t p = epoch * kSamples; p < (epoch + 1) * kSamples; ++p)
        seen.insert(sample_at[p]);
      EXPECT_EQ(seen.size(), kSamples);
    }
  }
}

class DamagedSample : public LoaderTest {
 protected:
  void check(const ReadOptions& how) const;
};

TEST_F(DamagedSample, KeepsItsSlotAndChangesNothingElse) {
  check({});
  check({.mapped = true, .copies_before_map = 0});
}

void DamagedSample::check(const ReadOptions& how) const {
  const test::TempDir copy;
  std::filesystem::copy(path_, copy / "set");
  const auto shard = copy / "set/train-00001.h5";
  test::flip_bit(shard, std::filesystem::file_size(shard) / 2);
  const ShardDataset damaged(copy / "set", "train", how);
  Loader good(set_, sampler_, three_epochs().plan(), small(), kSeed, {});
  Loader bad(damaged, sampler_, three_epochs().plan(), small(), kSeed, {});
  std::vector<BadSample> found;
  while (const auto a = good.next()) {
    auto b = bad.next();
    ASSERT_TRUE(b.has_value());
    ASSERT_EQ(a->samples, b->samples);
    ASSERT_EQ(a->labels, b->labels);
    found.insert(found.end(), b->bad.begin(), b->bad.end());
    for (size_t i = 0; i < a->samples.size(); ++i) {
      const auto slot = [i](const MicroBatch& m) {
        const auto begin = m.pixels.begin() + static_cast<std::ptrdiff_t>(i * 16 * 16 * 3);
        return std::vector<uint8_t>(begin, begin + 16 * 16 * 3);
      };
      ASSERT_EQ(a->weights[i], 1.0f);
      if (b->weights[i] == 1.0f) {
        ASSERT_EQ(slot(*a), slot(*b));
      } else {
        ASSERT_EQ(slot(*b), std::vector<uint8_t>(16 * 16 * 3, 128));
      }
    }
  }
  EXPECT_FALSE(bad.next().has_value());
  ASSERT_EQ(found.size(), 3u) << "one sample, once per epoch";
  EXPECT_GE(found[0].sample, kShard);
  for (const BadSample& b : found) {
    EXPECT_EQ(b.sample, found[0].sample);
    EXPECT_FALSE(b.reason.empty());
    EXPECT_EQ(sampler_.at(b.position).sample, b.sample);
  }
}

TEST_F(LoaderTest, AWorkersFailureIsRethrownAndTheLoaderLivesOn) {
  AugmentOptions impossible = small();
  impossible.image_size = 0;
  for (const int workers : {0, 2}) {
    Loader loader(set_, sampler_, three_epochs().plan(), impossible, kSeed, {.workers = workers});
    EXPECT_THROW(loader.next(), std::logic_error);
    EXPECT_THROW(loader.next(), std::logic_error) << "the same micro-batch again";
    loader.seek(three_epochs().steps() * 8 - 1);
    EXPECT_EQ(loader.next()->count, 0) << "an empty micro-batch has no image that could fail";
  }
}

TEST_F(LoaderTest, DestructionWithWorkInFlight) {
  for (int turn = 0; turn < 30; ++turn) {
    Loader loader(set_, sampler_, three_epochs().plan(), small(), kSeed,
                  {.workers = 3, .prefetch = 8});
    loader.seek(static_cast<uint64_t>(turn));
    if (turn % 3 == 0) loader.next();
    if (turn % 5 == 0) loader.seek(0);
  }
}

TEST_F(LoaderTest, WindowedOrderAndRepeatGoThroughTheLoader) {
  const Sampler sampler({.samples = kSamples,
                         .seed = kSeed,
                         .shuffle = Shuffle::kWindowed,
                         .repeat = 2,
                         .shard_samples = kShard,
                         .window_shards = 1});
  Loader loader(set_, sampler,
                TrainPlan{.batch_size = 8, .micro_batches = 2, .end_position = 2 * kSamples}.plan(),
                small(), kSeed, {});
  std::map<uint64_t, int> count;
  while (const auto batch = loader.next()) {
    for (size_t i = 0; i + 1 < batch->samples.size(); i += 2)
      EXPECT_EQ(batch->samples[i], batch->samples[i + 1]);
    for (const uint64_t sample : batch->samples) ++count[sample];
  }
  EXPECT_EQ(count.size(), kSamples);
  for (const auto& [sample, times] : count) EXPECT_EQ(times, 2) << sample;
}

TEST_F(LoaderTest, WindowsRepeatsWorldsAndRestartsTogether) {
  const Sampler sampler({.samples = kSamples,
                         .seed = kSeed,
                         .shuffle = Shuffle::kWindowed,
                         .repeat = 4,
                         .shard_samples = kShard,
                         .window_shards = 2});
  const auto plan = [](uint64_t rank, uint64_t world) {
    return TrainPlan{.batch_size = 16,
                     .micro_batches = 4,
                     .end_position = 6 * kSamples,  // in the middle of the second epoch
                     .rank = rank,
                     .world = world};
  };
  std::map<uint64_t, std::string> expected;
  Loader alone(set_, sampler, plan(0, 1).plan(), small(), kSeed, {.workers = 0});
  while (const auto batch = alone.next()) expected[batch->range.begin] = digest(*batch);
  for (const uint64_t world : {1, 3, 4}) {
    for (uint64_t step = 0; step < plan(0, 1).steps(); step += 3) {
      for (uint64_t rank = 0; rank < world; ++rank) {
        const TrainPlan part = plan(rank, world);
        Loader loader(set_, sampler, part.plan(), small(), kSeed, {.workers = 2});
        loader.seek(step * part.per_step());
        for (uint64_t k = 0; k < part.per_step(); ++k) {
          const auto batch = loader.next();
          ASSERT_TRUE(batch.has_value());
          if (batch->count == 0) continue;
          EXPECT_EQ(digest(*batch), expected.at(batch->range.begin));
        }
      }
    }
  }
}

TEST_F(LoaderTest, EvaluationChunksCoverTheSplit) {
  const Sampler in_order({.samples = kSamples, .shuffle = Shuffle::kNone});
  AugmentOptions centre = small();
  centre.crop = Crop::kCenter;
  std::map<uint64_t, std::string> expected;
  for (const uint64_t world : {1, 2, 3, 5, 60}) {
    std::map<uint64_t, std::string> chunks;
    for (uint64_t rank = 0; rank < world; ++rank) {
      Loader loader(set_, in_order, eval_plan(kSamples, 8, rank, world), centre, 0, {.workers = 1});
      while (const auto batch = loader.next()) {
        EXPECT_EQ(batch->samples.front(), batch->range.begin);
        EXPECT_TRUE(chunks.emplace(batch->range.begin, digest(*batch)).second);
      }
    }
    EXPECT_EQ(chunks.size(), 6u);
    if (world == 1) expected = chunks;
    EXPECT_EQ(chunks, expected) << world;
  }
}

}  // namespace
}  // namespace nf::data

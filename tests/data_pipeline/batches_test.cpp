// One SHA-256 for the batches of a run, whatever computes them: any number of ranks, loader
// threads, batches in flight and images read ahead, any point of restart, any instruction set of
// ours; and, as this program is run a second time with JSIMD_FORCENONE=1, of libjpeg-turbo too. The
// recipe of the plain crop and that with MixUp, CutMix and RandAugment.
#include <gtest/gtest.h>

#include <map>

#include "core/hash.h"
#include "data_pipeline/loader.h"
#include "data_pipeline/slot.h"
#include "tests/data_pipeline/drawn_dataset.h"

namespace nf::data {
namespace {

constexpr uint64_t kSamples = 45, kBatch = 32, kMicroBatches = 16, kSeed = 9;

class Batches : public testing::TestWithParam<bool> {
 protected:
  static void SetUpTestSuite() {
    folder_ = new test::TempDir;
    path_ = test::draw_dataset(*folder_, kSamples, 20);
  }
  static void TearDownTestSuite() { delete folder_; }

  static AugmentOptions augment() {
    AugmentOptions o;
    o.image_size = 20;
    if (GetParam()) {
      o.mix = {0.2, true};
      o.randaugment = {4, 5};
    }
    return o;
  }
  static TrainPlan plan(uint64_t rank = 0, uint64_t world = 1) {
    return {kBatch, kMicroBatches, 2 * kSamples, rank, world};
  }

  using Parts = std::map<uint64_t, std::string>;  // by first position

  // What training sees of one micro-batch.
  static std::string digest(const MicroBatch& b) {
    Sha256 sha;
    const auto add = [&](const auto& values) { sha.update(std::as_bytes(std::span(values))); };
    add(b.pixels);
    add(b.samples);
    add(b.weights);
    add(b.labels);
    add(b.label_offset);
    add(b.mix_samples);
    add(b.mix_labels);
    add(b.mix_ratio);
    return sha.hex();
  }
  void take(Parts& parts, const TrainPlan& plan, const LoaderOptions& options,
            uint64_t start = 0) const {
    Loader loader(set_, sampler_, plan.plan(), augment(), kSeed, options);
    loader.seek(start);
    while (const auto batch = loader.next())
      if (batch->count > 0) parts[batch->range.begin] = digest(*batch);
  }
  Parts whole(const LoaderOptions& options, uint64_t world = 1) const {
    Parts parts;
    for (uint64_t rank = 0; rank < world; ++rank) take(parts, plan(rank, world), options);
    return parts;
  }
  static std::string join(const Parts& parts) {
    Sha256 sha;
    for (const auto& [begin, part] : parts) sha.update(as_bytes(part));
    return sha.hex();
  }

  static test::TempDir* folder_;
  static std::filesystem::path path_;
  const ShardDataset set_{path_, "train"};
  const Sampler sampler_{{.samples = kSamples, .seed = kSeed}};
};
test::TempDir* Batches::folder_ = nullptr;
std::filesystem::path Batches::path_;

TEST_P(Batches, AnyWorld) {
  const Parts expected = whole({.workers = 0});
  ASSERT_EQ(expected.size(), kSamples);  // micro-batches of two
  for (const uint64_t world : {1, 2, 3, 4, 5, 7, 8, 16})
    EXPECT_EQ(whole({.workers = 1}, world), expected) << world;
}

TEST_P(Batches, AnyNumberOfThreadsInFlightAndReadAhead) {
  const Parts expected = whole({.workers = 0});
  for (int workers = 0; workers <= 8; ++workers)
    for (int prefetch = 1; prefetch <= 8; ++prefetch)
      EXPECT_EQ(whole({.workers = workers, .prefetch = prefetch, .read_ahead = prefetch}), expected)
          << workers << " " << prefetch;
  for (const int read_ahead : {0, 1, 100})
    EXPECT_EQ(whole({.workers = 2, .prefetch = 4, .read_ahead = read_ahead}), expected);
}

TEST_P(Batches, AnyRestart) {
  const Parts expected = whole({.workers = 0});
  for (uint64_t start = 0; start <= plan().steps(); ++start) {
    Parts parts;
    take(parts, plan(), {.workers = 2}, start * kMicroBatches);
    for (const auto& [begin, part] : parts) EXPECT_EQ(part, expected.at(begin)) << start;
    EXPECT_EQ(parts.size(), (2 * kSamples - std::min(start * kBatch, 2 * kSamples)) / 2);
  }
}

TEST_P(Batches, EveryInstructionSet) {
  std::vector<SimdLevel> levels = {SimdLevel::kPortable};
  for (const auto level : {SimdLevel::kAvx2, SimdLevel::kAvx512})
    if (level <= best_simd_level()) levels.push_back(level);
  const Sampler partners(partner_order(sampler_.options(), kSeed));
  std::string expected;
  for (const SimdLevel level : levels) {
    SlotMemory memory{.sample = {},
                      .partner = {},
                      .scratch = {.decoder = {}, .resizer = Resizer(level), .square = {}},
                      .partner_pixels = {},
                      .spare = {}};
    Sha256 sha;
    for (uint64_t position = 0; position < 2 * kSamples; ++position) {
      SlotSource source{position, sampler_.at(position).sample, std::nullopt};
      if (GetParam()) source.partner = partners.at(position).sample;
      std::vector<uint8_t> pixels(20 * 20 * 3);
      ASSERT_TRUE(fill_slot(set_, augment(), kSeed, source, pixels.data(), memory).fault.ok());
      sha.update(std::as_bytes(std::span(pixels)));
    }
    const std::string hex = sha.hex();
    if (expected.empty()) expected = hex;
    EXPECT_EQ(hex, expected) << static_cast<int>(level);
  }
}

// The same with and without libjpeg-turbo's SIMD, today and in later versions.
TEST_P(Batches, FrozenBits) {
  EXPECT_EQ(join(whole({.workers = 2})),
            GetParam() ? "76c072a76ece014ce7772ace7fed2193e27ef139d678b16e3236cf86fbad7960"
                       : "b25beecd570041ebc96075bdf45ca5a692e59a2cc1518e18011a92409e9bc7a3");
}

INSTANTIATE_TEST_SUITE_P(Recipes, Batches, testing::Bool(),
                         [](const auto& recipe) { return recipe.param ? "full" : "plain"; });

}  // namespace
}  // namespace nf::data

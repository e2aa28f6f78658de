// The simulation behind the plot in docs/: ours uses every sample exactly once per epoch under any
// kills; the usual pipeline does so without kills, and loses and repeats samples with them.
#include "bench/lost_samples.h"

#include <gtest/gtest.h>

#include <numeric>

namespace nf::bench {
namespace {

LostSamplesOptions small() {
  return {
      .samples = 20011, .files = 64, .hosts = 4, .batch = 128, .kills = 30, .checkpoint_every = 5};
}

TEST(LostSamples, OursUsesEverySampleOncePerEpochUnderAnyKills) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    LostSamplesOptions options = small();
    options.seed = seed;
    ASSERT_EQ(kill_steps(options).size(), 30u);
    for (const uint32_t times : times_used(options, Pipeline::kOurs)) ASSERT_EQ(times, 3u);
  }
}

TEST(LostSamples, TheUsualPipelineLosesAndRepeats) {
  for (const Pipeline pipeline : {Pipeline::kFixedFiles, Pipeline::kShuffledFiles}) {
    const UseCounts counts = count_uses(small(), pipeline);
    EXPECT_GT(counts.never, 100u) << to_string(pipeline);
    EXPECT_GT(counts.too_often, 1000u);
    EXPECT_GT(counts.most, 3u);
  }
}

TEST(LostSamples, AllPipelinesDoTheSameAmountOfWork) {
  for (const Pipeline pipeline :
       {Pipeline::kFixedFiles, Pipeline::kShuffledFiles, Pipeline::kOurs}) {
    const auto used = times_used(small(), pipeline);
    EXPECT_EQ(std::accumulate(used.begin(), used.end(), uint64_t{0}), 3u * 20011u);
  }
}

// The simulated peer is not a straw man: left alone it is nearly exact, and only its buffer's tail
// is missing.
TEST(LostSamples, TheUsualPipelineIsNearlyExactWithoutKills) {
  LostSamplesOptions options = small();
  options.kills = 0;
  const UseCounts counts = count_uses(options, Pipeline::kFixedFiles);
  EXPECT_EQ(counts.never, 0u);
  EXPECT_GT(counts.wanted, 20011u * 8 / 10);
}

TEST(LostSamples, PlotScriptHoldsEverySeries) {
  const LostSamplesOptions options = small();
  const std::vector<UseCounts> results = {count_uses(options, Pipeline::kFixedFiles),
                                          count_uses(options, Pipeline::kOurs)};
  const std::string script = plot_script(options, results, "x.svg");
  EXPECT_NE(script.find("usual pipeline"), std::string::npos);
  EXPECT_NE(script.find("nfscale"), std::string::npos);
  EXPECT_NE(script.find("\"3\" "), std::string::npos);
  EXPECT_EQ(to_json(options, results)["pipelines"][1]["most"], 3);
}

}  // namespace
}  // namespace nf::bench

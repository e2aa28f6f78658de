// What a run says about its memory before it starts, against what it took; and what recomputing
// saves. Real processes, since memory is theirs.
#include <gtest/gtest.h>

#include <cmath>

#include "core/jsonl.h"
#include "tests/support/tiny_run.h"

namespace nf {
namespace {
namespace fs = std::filesystem;

struct Figures {
  double estimate = 0, peak = 0;  // bytes
  std::string weights;            // of the end, to the byte
};

class Memory : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new test::TempDir;
    test::make_shapes_dataset(*scratch_ / "data", 16, 10);
    std::ofstream(*scratch_ / "empty.toml") << "# all keys by --set\n";
  }
  static void TearDownTestSuite() { delete scratch_; }

  static Figures train(const std::string& name, const std::vector<std::string>& net) {
    std::vector<std::string> argv = {test::program("nf-train").string(), "--config",
                                     (*scratch_ / "empty.toml").string(), "--output",
                                     (*scratch_ / name).string()};
    std::vector<std::string> keys = {"data.path=" + (*scratch_ / "data").string(),
                                     "batch.micro_batches=1",
                                     "checkpoint.every_steps=0",
                                     "limit.steps=1",
                                     "log.tensorboard=false",
                                     "schedule.warmup_epochs=0",
                                     "optimizer.learning_rate=0.1"};
    keys.insert(keys.end(), net.begin(), net.end());
    for (const auto& k : keys) argv.insert(argv.end(), {"--set", k});
    const auto o = test::run(argv);
    EXPECT_EQ(o.code, 0) << o.err;
    Figures f;
    for (const auto& line : read_jsonl(*scratch_ / name / "metrics.jsonl")) {
      if (line["kind"] == "start") f.estimate = line["memory_estimate_bytes"];
      if (line["kind"] == "end") f.peak = line["peak_memory_bytes"];
    }
    EXPECT_NE(o.err.find("memory of a rank: about " +
                         std::to_string(std::llround(f.estimate / 1048576)) + " MiB"),
              std::string::npos)
        << o.err;
    f.weights = test::slurp(test::latest(*scratch_ / name) / "model.safetensors");
    return f;
  }

  static test::TempDir* scratch_;
};
test::TempDir* Memory::scratch_ = nullptr;

TEST_F(Memory, TheEstimateIsWithinATenthOfWhatIsTaken) {
  const Figures f = train("f0", {"model.name=nfnet_f0", "data.image_size=96", "batch.size=8"});
  EXPECT_NEAR(f.estimate / f.peak, 1.0, 0.1) << f.estimate << " " << f.peak;
}

TEST_F(Memory, RecomputingSavesHalfOfAWideNetsMemoryAndTheEstimateKnowsIt) {
  const std::vector<std::string> net = {"model.name=nfnet_mini", "data.image_size=64",
                                        "batch.size=64"};
  auto again = net;
  again.push_back("train.recompute=blocks");
  const Figures kept = train("kept", net), less = train("less", again);
  EXPECT_LT(less.peak, 0.5 * kept.peak);
  EXPECT_NEAR(less.estimate / less.peak, 1.0, 0.1) << less.estimate << " " << less.peak;
  EXPECT_EQ(less.weights, kept.weights);
  auto automatic = net;
  automatic.insert(automatic.end(), {"train.recompute=auto", "train.memory_gib=1"});
  EXPECT_LT(train("automatic", automatic).peak, 0.5 * kept.peak);
}

}  // namespace
}  // namespace nf

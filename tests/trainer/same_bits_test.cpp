// The promise of the whole project: weights, momentum, average and state are the same bytes for any
// number of ranks and loader threads, here with ranks as threads of one process.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/support/thread_runs.h"

namespace nf {
namespace {

class SameBits : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new test::RunScratch(20, 23);  // 177 samples: no multiple of the batch of 48
  }
  static void TearDownTestSuite() { delete scratch_; }

  static std::string data() { return scratch_->data(); }

  // Trains with `world` ranks and returns the run directory.
  static std::filesystem::path train(const std::string& name, int world,
                                     const std::vector<std::string>& more = {}) {
    return scratch_->train(name, world, more);
  }
  static void expect_same(const std::filesystem::path& a, const std::filesystem::path& b) {
    test::expect_same_run(a, b);
  }

  static test::RunScratch* scratch_;
};
test::RunScratch* SameBits::scratch_ = nullptr;

TEST_F(SameBits, AnyNumberOfRanks) {
  const auto reference = train("w1", 1);
  ASSERT_FALSE(test::slurp(test::latest(reference) / "model.safetensors").empty());
  for (const int world : {2, 3, 4, 8})
    expect_same(reference, train(std::string("w").append(std::to_string(world)), world));
}

// The ranks change every 10 steps, resuming each time; every step's state is compared.
TEST_F(SameBits, AWorldThatChangesEveryTenSteps) {
  const std::vector<std::string> every = {"schedule.epochs=36", "checkpoint.every_steps=1",
                                          "checkpoint.keep=1000", "batch.size=32"};
  const auto with_limit = [&](int steps) {
    auto more = every;
    more.push_back("limit.steps=" + std::to_string(steps));
    return more;
  };
  constexpr int kSteps = 200;
  const auto calm = train("calm", 1, with_limit(kSteps));
  const std::vector<int> worlds = {8, 1, 2, 4, 3, 8};
  for (int k = 0; k * 10 < kSteps; ++k)
    train("path", worlds[static_cast<size_t>(k) % worlds.size()], with_limit((k + 1) * 10));
  for (uint64_t step = 1; step <= kSteps; ++step)
    for (const auto& file : test::state_files())
      ASSERT_EQ(test::slurp(train::checkpoint_path(*scratch_ / "path/checkpoints", step) / file),
                test::slurp(train::checkpoint_path(calm / "checkpoints", step) / file))
          << file << " of step " << step;
}

TEST_F(SameBits, MessagesAndSharedMemoryGiveTheSame) {
  expect_same(train("shared", 3), train("messages", 3, {"comm.shared_memory=false"}));
}

// Integers that no order can change: the tree may differ from them by rounding only.
TEST_F(SameBits, TheIntegerOracleAgreesWithItselfAndNearlyWithTheTree) {
  const auto one = train("fixed1", 1, {"comm.reduction=fixed64"});
  expect_same(one, train("fixed3", 3, {"comm.reduction=fixed64"}));
  const auto losses = [](const std::filesystem::path& run) {
    std::vector<double> out;
    for (const auto& line : read_jsonl(run / "metrics.jsonl"))
      if (line["kind"] == "train") out.push_back(line["loss"]);
    return out;
  };
  const auto a = losses(one), b = losses(train("tree", 1));
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-4 * b[i]);
}

TEST_F(SameBits, NonFiniteStepsAreSkippedOnAllRanksAlike) {
  const std::vector<std::string> wild = {"train.on_non_finite=skip", "optimizer.learning_rate=1e30",
                                         "optimizer.agc_clip=0",     "schedule.warmup_epochs=0",
                                         "checkpoint.every_steps=1", "checkpoint.keep=100",
                                         "optimizer.weight_decay=0"};
  const auto one = train("wild1", 1, wild), two = train("wild2", 2, wild);
  expect_same(one, two);
  std::vector<uint64_t> skipped;
  for (const auto& line : read_jsonl(one / "metrics.jsonl"))
    if (line.contains("skipped")) skipped.push_back(line["step"]);
  ASSERT_FALSE(skipped.empty());
  for (const uint64_t step : skipped) {
    const auto at = [&](uint64_t s) {
      const auto dir = train::checkpoint_path(one / "checkpoints", s);
      return test::slurp(dir / "model.safetensors") + test::slurp(dir / "optimizer.safetensors") +
             test::slurp(dir / "ema.safetensors");
    };
    EXPECT_EQ(at(step), at(step - 1)) << step;
  }
}

TEST_F(SameBits, TheBestTheNewestAndTheRoundOnesAreKept) {
  const auto run =
      train("kept", 2,
            {"schedule.epochs=3", "evaluate.split=holdout", "evaluate.every_steps=2",
             "checkpoint.every_steps=1", "checkpoint.keep=1", "checkpoint.keep_every_steps=5"});
  double best_loss = 1e9;
  uint64_t best = 0, last = 0;
  for (const auto& line : read_jsonl(run / "metrics.jsonl")) {
    if (line["kind"] == "train") last = line["step"];
    if (line["kind"] != "eval" || line["weights"] != "ema" || line["loss"] >= best_loss) continue;
    best_loss = line["loss"];
    best = line["step"];
  }
  std::set<uint64_t> expected = {best, last}, there;
  for (uint64_t s = 5; s <= last; s += 5) expected.insert(s);
  for (const auto& entry : train::list_checkpoints(run / "checkpoints")) there.insert(entry.step);
  EXPECT_EQ(there, expected);
  EXPECT_EQ(train::follow_latest(run / "checkpoints/best"),
            train::checkpoint_path(run / "checkpoints", best));
}

TEST_F(SameBits, TheProfileShowsTheExchangeInsideTheBackwardPass) {
  const auto run = train("profile", 2, {"train.profile=2..3", "model.widths=[64,128,256,256]"});
  for (const int rank : {0, 1}) {
    const Json trace =
        Json::parse(test::slurp(run / "timeline" / ("rank_0000" + std::to_string(rank) + ".json")));
    double last_backward_end = 0, first_exchange = 1e300;
    std::set<std::string> names;
    for (const auto& e : trace["traceEvents"]) {
      names.insert(e["name"]);
      EXPECT_EQ(e["pid"], rank);
      const double begin = e["ts"], end = begin + e["dur"].get<double>();
      if (e["name"] == "backward") last_backward_end = std::max(last_backward_end, end);
      if (e["name"] == "exchange") first_exchange = std::min(first_exchange, begin);
    }
    for (const char* name : {"forward", "backward", "exchange", "update", "wait for data"})
      EXPECT_TRUE(names.contains(name)) << name;
    EXPECT_LT(first_exchange, last_backward_end);
  }
}

TEST_F(SameBits, AnyNumberOfLoaderThreads) {
  const auto reference = train("workers2", 1);
  for (const char* workers : {"0", "1", "4"})
    expect_same(reference, train(std::string("workers") + workers, 1,
                                 {std::string("data.workers=") + workers}));
}

TEST_F(SameBits, CopiedAndMappedShards) {
  const std::vector<std::string> mapped = {"data.read=mmap", "evaluate.split=holdout"};
  expect_same(train("pread", 1, {"evaluate.split=holdout"}), train("mmap", 2, mapped));
}

TEST_F(SameBits, EvaluationIsTheSameForAnyNumberOfRanks) {
  const auto loss = [&](int world) {
    const auto dir = train(std::string("eval").append(std::to_string(world)), world,
                           {"evaluate.split=holdout", "evaluate.chunk=5"});
    const Json r = Json::parse(test::slurp(dir / "result.json"));
    return r["heldout_loss"].dump() + " " + r["heldout_top1"].dump() + " " +
           r["heldout_loss_ema"].dump();
  };
  const std::string one = loss(1);
  EXPECT_EQ(one, loss(2));
  EXPECT_EQ(one, loss(3));
}

// MixUp, CutMix and RandAugment are drawn by position too.
TEST_F(SameBits, TheWholeRecipeOfAugmentation) {
  for (const std::string kind : {"softmax", "sigmoid"}) {
    std::vector<std::string> recipe = {
        "data.crop=random_resized",  "data.mixup_alpha=0.2",         "data.cutmix=true",
        "data.randaugment_layers=4", "data.randaugment_magnitude=5", "loss.kind=" + kind};
    if (kind == "sigmoid") recipe.push_back("loss.label_smoothing=0");
    const auto reference = train("recipe_" + kind, 1, recipe);
    expect_same(reference, train("recipe3_" + kind, 3, recipe));
    recipe.push_back("data.workers=0");
    expect_same(reference, train("recipe0_" + kind, 1, recipe));
    recipe[1] = "data.mixup_alpha=0.4";
    const auto other = train("recipe_other_" + kind, 1, recipe);
    EXPECT_NE(test::slurp(test::latest(reference) / "model.safetensors"),
              test::slurp(test::latest(other) / "model.safetensors"));
  }
}

// The comparison above would be empty if nothing depended on the seed.
TEST_F(SameBits, AnotherSeedGivesOtherBits) {
  const auto a = train("seed11", 1), b = train("seed12", 1, {"run.seed=12"});
  EXPECT_NE(test::slurp(test::latest(a) / "model.safetensors"),
            test::slurp(test::latest(b) / "model.safetensors"));
}

TEST_F(SameBits, MoreRanksThanMicroBatchesIsAnError) {
  const train::RunConfig config = test::tiny_config(data());
  EXPECT_THROW(train::ThreadsGroup(9, 60).run(
                   [&](train::Communicator& comm) { train::Trainer trainer(config, comm); }),
               Error);
}

}  // namespace
}  // namespace nf

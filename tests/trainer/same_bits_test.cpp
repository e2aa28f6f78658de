// The promise of the whole project: weights, momentum, average and state are the same bytes for any
// number of ranks and loader threads, here with ranks as threads of one process.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "core/jsonl.h"
#include "tests/support/tiny_run.h"
#include "trainer/agreement.h"
#include "trainer/comm/local.h"
#include "trainer/comm/threads.h"
#include "trainer/loop.h"

namespace nf {
namespace {

class SameBits : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new test::TempDir;
    test::make_shapes_dataset(*scratch_ / "data", 20,
                              23);  // 177 samples: no multiple of the batch of 48
  }
  static void TearDownTestSuite() { delete scratch_; }

  static std::string data() { return (*scratch_ / "data").string(); }

  // Trains with `world` ranks and returns the run directory.
  static std::filesystem::path train(const std::string& name, int world,
                                     const std::vector<std::string>& more = {}) {
    const train::RunConfig config = test::tiny_config(data(), more);
    train::LoopOptions options;
    options.output = *scratch_ / name;
    options.quiet = true;
    const train::StopWatch watch(0);
    const auto body = [&](train::Communicator& comm) {
      at::set_num_threads(1);
      train::Trainer trainer(config, comm);
      EXPECT_EQ(train::run_training(trainer, options, watch), ExitCode::kDone);
    };
    if (world == 1) {
      train::LocalCommunicator alone;
      body(alone);
    } else {
      train::ThreadsGroup(world, 120).run(body);
    }
    return options.output;
  }

  static void expect_same(const std::filesystem::path& a, const std::filesystem::path& b) {
    for (const auto& file : test::state_files())
      EXPECT_EQ(test::slurp(test::latest(a) / file), test::slurp(test::latest(b) / file))
          << file << " of " << b;
    const auto losses = [](const std::filesystem::path& run) {
      std::vector<std::string> out;
      for (const auto& line : read_jsonl(run / "metrics.jsonl"))
        if (line["kind"] == "train")
          out.push_back(line["step"].dump() + " " + line["loss"].dump() + " " +
                        line["grad_norm"].dump());
      return out;
    };
    EXPECT_EQ(losses(a), losses(b)) << b;
    EXPECT_EQ(test::slurp(a / "ledger.jsonl"), test::slurp(b / "ledger.jsonl")) << b;
  }

 private:
  static test::TempDir* scratch_;
};
test::TempDir* SameBits::scratch_ = nullptr;

TEST_F(SameBits, AnyNumberOfRanks) {
  const auto reference = train("w1", 1);
  ASSERT_FALSE(test::slurp(test::latest(reference) / "model.safetensors").empty());
  for (const int world : {2, 3, 4, 8})
    expect_same(reference, train(std::string("w").append(std::to_string(world)), world));
}

TEST_F(SameBits, AnyNumberOfLoaderThreads) {
  const auto reference = train("workers2", 1);
  for (const char* workers : {"0", "1", "4"})
    expect_same(reference, train(std::string("workers") + workers, 1,
                                 {std::string("data.workers=") + workers}));
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
    std::vector<std::string> recipe = {"data.crop=random_resized",    "data.mixup_alpha=0.2",
                                       "data.cutmix=true",            "data.randaugment_layers=4",
                                       "data.randaugment_magnitude=5", "loss.kind=" + kind};
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

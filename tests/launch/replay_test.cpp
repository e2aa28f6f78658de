// nf-sweep replay on tables made here, whose answers can be told by hand, and on the made sweep.
#include "launch/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "tests/support/process.h"

namespace nf::launch {
namespace {

using testing::HasSubstr;

class Replay : public testing::Test {
 protected:
  std::string write(const std::string& text) {
    std::ofstream(dir_ / "table.csv") << text;
    return (dir_ / "table.csv").string();
  }
  static Json report(const std::string& file, Policy policy, std::vector<std::string> group = {}) {
    const ReplayColumns columns = {"f", "d", "lr", "loss", std::move(group)};
    return replay_report(read_replay_table(file, columns, std::nullopt, 2), policy);
  }
  test::TempDir dir_;
};

// Cell 1: best at 0.8, cell 2: best at 0.4, with a diverged rate and one that is missing.
constexpr const char* kTwoCells =
    "f,d,lr,loss\n"
    "1,10,0.2,2.4\n1,10,0.4,2.2\n1,10,0.8,2.0\n1,10,1.6,2.1\n1,10,3.2,nan\n"
    "1,20,0.2,1.9\n1,20,0.4,1.7\n1,20,0.8,1.8\n1,20,1.6,\n";

TEST_F(Replay, BracketFindsEveryBest) {
  const Json r = report(write(kTwoCells), Policy::kBracket);
  ASSERT_EQ(r["cells"].size(), 2u);
  // 1.6, 0.8 (better), 0.4: closed.
  EXPECT_EQ(r["cells"][0]["trials"], 3);
  EXPECT_EQ(r["cells"][0]["chosen"], 0.8);
  // 0.8, 0.4 (better), 0.2: closed.
  EXPECT_EQ(r["cells"][1]["trials"], 3);
  EXPECT_EQ(r["cells"][1]["chosen"], 0.4);
  EXPECT_EQ(r["mean_trials"], 3.0);
  EXPECT_EQ(r["exact"], 1.0);
  EXPECT_EQ(r["within_one"], 1.0);
  EXPECT_EQ(r["mean_regret"], 0.0);
}

TEST_F(Replay, TwoTrialsBracketTheFirstCell) {
  const Json r = report(write(kTwoCells), Policy::kTwoTrial);
  EXPECT_EQ(r["cells"][0]["trials"], 3) << "the first cell of a group is bracketed";
  EXPECT_EQ(r["cells"][1]["trials"], 2);
  EXPECT_EQ(r["cells"][1]["chosen"], 0.4);
  EXPECT_EQ(r["cells"][1]["size"], 1.0);
  EXPECT_EQ(r["cells"][1]["images"], 20.0);
}

TEST_F(Replay, FullTriesTheWholeRange) {
  const Json r = report(write(kTwoCells), Policy::kFull);
  EXPECT_EQ(r["cells"][1]["trials"], 5) << "rates that the cell lacks count as diverged";
  EXPECT_EQ(r["exact"], 1.0);
}

TEST_F(Replay, RegretIsTheLossGivenAway) {
  // The second cell's best lies two notches below the start.
  const Json r = report(write("f,d,lr,loss\n1,1,0.8,2.2\n1,1,1.6,2.0\n1,1,3.2,2.1\n"
                              "2,1,0.4,1.5\n2,1,0.8,1.625\n2,1,1.6,1.75\n2,1,3.2,3\n"),
                        Policy::kTwoTrial);
  EXPECT_EQ(r["cells"][1]["chosen"], 0.8);
  EXPECT_EQ(r["cells"][1]["best_in_table"], 0.4);
  EXPECT_EQ(r["cells"][1]["regret"], 0.125);
  EXPECT_EQ(r["exact"], 0.5);
  EXPECT_EQ(r["within_one"], 1.0);
  EXPECT_EQ(r["mean_regret"], 0.0625);
}

TEST_F(Replay, GroupsKnowNothingOfEachOther) {
  const Json r = report(
      write("f,d,lr,loss,batch,set\n"
            "1,1,0.1,2,64,a\n1,1,0.2,1,64,a\n1,1,0.4,2,64,a\n1,1,0.8,2.5,64,a\n1,1,1.6,3,64,a\n"
            "1,1,0.8,2,128,a\n1,1,1.6,1,128,a\n1,1,3.2,2,128,a\n"),
      Policy::kTwoTrial, {"batch", "set"});
  ASSERT_EQ(r["cells"].size(), 2u);
  EXPECT_EQ(r["cells"][0]["group"], "128,a");
  EXPECT_EQ(r["cells"][0]["chosen"], 1.6);
  EXPECT_EQ(r["cells"][1]["chosen"], 0.2) << "bracketed from the anchor down, being a first cell";
  EXPECT_EQ(r["cells"][1]["trials"], 5);
}

TEST_F(Replay, OtherGridsAndRepeatedRows) {
  // Rates printed with few digits; two rows of one rate: their geometric mean.
  const Json r = report(write("f,d,lr,loss\n1,1,0.00069,3\n1,1,0.00138,2\n1,1,0.00138,4.5\n"
                              "1,1,0.00276,2.5\n1,1,0.0020,1\n"),
                        Policy::kFull);
  EXPECT_NEAR(r["cells"][0]["chosen"].get<double>(), 0.00276, 1e-5);
  ASSERT_EQ(r["warnings"].size(), 2u);
  EXPECT_THAT(r["warnings"][0].get<std::string>(), HasSubstr("1 of 5 rows left out"));
  EXPECT_THAT(r["warnings"][1].get<std::string>(), HasSubstr("not_bracketed"));
}

TEST_F(Replay, BadTablesAreRefused) {
  const auto code = [&](const std::string& text) {
    try {
      report(write(text), Policy::kBracket);
    } catch (const Error& e) {
      return e.code();
    }
    return ExitCode::kDone;
  };
  EXPECT_EQ(code(""), ExitCode::kData);
  EXPECT_EQ(code("f,d,lr,loss\n"), ExitCode::kData);
  EXPECT_EQ(code("f,d,lr\n1,1,1\n"), ExitCode::kUsage);
  EXPECT_EQ(code("f,d,lr,loss\n1,x,1,2\n"), ExitCode::kUsage);
  EXPECT_EQ(code("f,d,lr,loss\n1,1,0,2\n"), ExitCode::kUsage);
  EXPECT_EQ(code("f,d,lr,loss\n1,1,1.6,nan\n"), ExitCode::kData);
  EXPECT_EQ(code("f,d,lr,loss\n1,1,1.6,2\n"), ExitCode::kDone);
}

TEST_F(Replay, TheProgramOnTheMadeSweep) {
  const auto ask = [&](const std::string& policy) {
    const auto o =
        test::run({test::program("nf-sweep").string(), "replay", "--input",
                   test::golden("scaling/nfnet_like_sweep.csv").string(), "--size",
                   "train_flops_per_image", "--images", "images_seen", "--rate", "learning_rate",
                   "--loss", "heldout_loss", "--group", "batch,image_size", "--policy", policy});
    EXPECT_EQ(o.code, 0) << o.err;
    return Json::parse(o.out);
  };
  const Json bracket = ask("bracket"), two = ask("two_trial");
  EXPECT_EQ(bracket["cells"].size(), 36u);
  EXPECT_EQ(bracket["anchor"], 1.6);
  EXPECT_GT(bracket["exact"], 0.9);
  EXPECT_LT(bracket["mean_trials"], 4.0);
  EXPECT_LT(two["mean_trials"], 2.1);
  EXPECT_GT(two["exact"], 0.9);
  EXPECT_EQ(two["within_one"], 1.0);
}

TEST_F(Replay, TheProgramRefusesBadUsage) {
  const auto o =
      test::run({test::program("nf-sweep").string(), "replay", "--input", write(kTwoCells),
                 "--size", "g", "--images", "d", "--rate", "lr", "--loss", "loss"});
  EXPECT_EQ(o.code, 2);
  EXPECT_THAT(o.err, HasSubstr("no column 'g'"));
}

}  // namespace
}  // namespace nf::launch

// nf-sweep submit on a real Slurm: the smoke sweep in rounds of throttled arrays, one element
// or both preempted, submitted again in the middle of it; results.csv is that of nf-sweep run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/slurm/slurm_lab.h"
#include "tests/support/sweep_results.h"

namespace nf::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::AnyOf;
using testing::Each;
using testing::Ge;
using testing::HasSubstr;
using testing::Le;

class SlurmSweep : public testing::Test {
 protected:
  SlurmSweep() { make_shapes_dataset(dir_ / "set", 60, 100); }
  std::vector<std::string> command(const std::string& what, const std::string& output) {
    return {
        program("nf-sweep").string(),
        what,
        "--config",
        (source_dir() / "configs/sweeps/smoke.toml").string(),
        "--set",
        "data.path=" + (dir_ / "set").string(),
        "--set",
        "epochs=[20, 40]",  // some seconds each: a running element is still there when it must go
        "--set",
        "models=['nfnet_pico']",
        "--output",
        (dir_ / output).string()};
  }
  Outcome submit() {
    auto words = command("submit", "slurm");
    words.insert(words.end(), {"--throttle", "2"});
    return run(words);
  }
  std::map<std::string, std::string> results(const std::string& output) {
    return sweep_results(dir_ / output / "results.csv");
  }
  TempDir dir_;
};

TEST_F(SlurmSweep, EndsLikeTheSweepOnThisHost) {
  const Outcome calm = run(command("run", "calm"));
  ASSERT_EQ(calm.code, 0) << calm.err;

  SlurmLab lab({.nodes = 1, .cpus = 4});
  const Outcome first = submit();
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.out, HasSubstr("round 1: 2 runs"));
  const Outcome again = submit();
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("round 1 is under way"));

  // All four cores: whatever runs must go, one element or both.
  wait_until("a checkpoint", [&] {
    for (const auto& entry : fs::directory_iterator(dir_ / "slurm/runs"))
      if (fs::exists(entry.path() / "metrics.jsonl")) return true;
    return false;
  });
  lab.release(lab.take(1, 4));

  wait_until(
      "the end of the sweep",
      [&] {
        return run({"squeue", "-h"}).out.empty();
      },
      600);
  const std::string log = slurp(dir_ / "slurm/slurm/controller.log");
  EXPECT_THAT(log, HasSubstr("the sweep is complete"));
  EXPECT_EQ(results("slurm"), results("calm")) << log;
  EXPECT_EQ(results("calm").size(), 4u);

  size_t requeued = 0;
  for (const auto& [job, states] : lab.ended()) {
    requeued += states.size() - 1;
    EXPECT_THAT(std::vector<std::string>(states.begin(), states.end() - 1),
                Each(AnyOf("PENDING", "PREEMPTED")))
        << job;
  }
  EXPECT_THAT(requeued, AllOf(Ge(1u), Le(2u)));

  // Nothing is left to do, and nothing is done.
  const Outcome over = submit();
  EXPECT_EQ(over.code, 0) << over.err;
  EXPECT_THAT(over.out, HasSubstr("the sweep is complete"));
  EXPECT_EQ(run({"squeue", "-h"}).out, "");
}

}  // namespace
}  // namespace nf::test

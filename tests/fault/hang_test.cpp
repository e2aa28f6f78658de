// Ranks that die, freeze or stand still in a real mpirun job, in each part of a run: the whole job
// is gone soon, the rank is named, no process is left, and the same command continues the run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "core/jsonl.h"
#include "tests/support/tiny_run.h"

namespace nf {
namespace {

using std::chrono::milliseconds;

class Hang : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = std::make_unique<test::TempDir>();
    test::make_shapes_dataset(*scratch_ / "data", 40, 40);
    std::ofstream(*scratch_ / "empty.toml") << "# all keys by --set\n";
  }
  static void TearDownTestSuite() { scratch_.reset(); }

  // A run that is much longer than the test.
  std::vector<std::string> command(const std::filesystem::path& run,
                                   std::vector<std::string> more = {}) const {
    more.insert(more.begin(), {"schedule.epochs=400", "checkpoint.every_steps=20",
                               "comm.heartbeat_seconds=3", "evaluate.split=holdout"});
    return test::nf_train((*scratch_ / "empty.toml").string(), (*scratch_ / "data").string(),
                          run.string(), more);
  }

  static bool wait_for(const std::function<bool()>& condition, double seconds) {
    for (int i = 0; i < static_cast<int>(seconds * 100); ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(milliseconds(10));
    }
    return condition();
  }

  static uint64_t last_step(const std::filesystem::path& run) {
    uint64_t step = 0;
    for (const auto& line : read_jsonl(run / "ledger.jsonl")) step = line["step"];
    return step;
  }

  struct Ended {
    int code;
    std::string err;
    double seconds;
  };
  // Starts a job, lets it train, does `harm` to its ranks and waits for the end.
  Ended harm(const std::filesystem::path& run, int ranks,
             const std::function<void(test::Process&, const std::vector<pid_t>&)>& harm,
             const std::vector<std::string>& more = {}) {
    test::Process job(test::mpirun(ranks, command(run, more)), *scratch_ / "out",
                      *scratch_ / "err");
    EXPECT_TRUE(wait_for([&] { return last_step(run) >= 8 || !job.running(); }, 120));
    const auto pids = job.children();
    EXPECT_EQ(pids.size(), static_cast<size_t>(ranks)) << test::slurp(*scratch_ / "err");
    const auto begin = std::chrono::steady_clock::now();
    harm(job, pids);
    Ended e;
    e.code = job.wait();
    EXPECT_TRUE(wait_for(
        [&] {
          return std::none_of(pids.begin(), pids.end(), [](pid_t p) { return kill(p, 0) == 0; });
        },
        20))
        << "a rank outlived its job";
    e.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    e.err = test::slurp(*scratch_ / "err");
    return e;
  }

  // The same command, a little longer, on one rank: the run was not harmed.
  void expect_continues(const std::filesystem::path& run) {
    const auto steps = "limit.steps=" + std::to_string(last_step(run) + 3);
    const auto o = test::run(command(run, {steps}));
    EXPECT_EQ(o.code, 0) << o.err;
    const auto audit = test::run({test::program("nf-audit").string(), "run", run.string()});
    EXPECT_EQ(audit.code, 0) << audit.out << audit.err;
  }

  static std::unique_ptr<test::TempDir> scratch_;
};
std::unique_ptr<test::TempDir> Hang::scratch_;

TEST_F(Hang, AFrozenRankIsNamed) {
  const auto run = *scratch_ / "frozen";
  const auto e =
      harm(run, 3, [](test::Process&, const std::vector<pid_t>& pids) { kill(pids[1], SIGSTOP); });
  EXPECT_EQ(e.code, 5) << e.err;
  EXPECT_THAT(e.err, testing::HasSubstr("rank 1 on "));
  EXPECT_THAT(e.err, testing::HasSubstr("no sign of life"));
  const Json report = Json::parse(test::slurp(run / "hang-report.json"));
  EXPECT_EQ(report["suspect"]["rank"], 1);
  EXPECT_EQ(report["suspect"]["section"], "step");
  EXPECT_GE(report["suspect"]["step"].get<int>(), 4);
  expect_continues(run);
}

TEST_F(Hang, FrozenRankZeroIsNamedByTheOthers) {
  const auto run = *scratch_ / "root";
  const auto e =
      harm(run, 2, [](test::Process&, const std::vector<pid_t>& pids) { kill(pids[0], SIGSTOP); });
  EXPECT_EQ(e.code, 5) << e.err;
  EXPECT_THAT(e.err, testing::HasSubstr("rank 0 on "));
  expect_continues(run);
}

TEST_F(Hang, AllRanksFrozen) {
  const auto run = *scratch_ / "all";
  const auto e = harm(run, 2, [](test::Process&, const std::vector<pid_t>& pids) {
    for (const pid_t p : pids) kill(p, SIGSTOP);
  });
  EXPECT_NE(e.code, 0);
  EXPECT_THAT(e.err, testing::HasSubstr("was stopped for"));
  expect_continues(run);
}

TEST_F(Hang, AStoppedLauncherDoesNotKeepItsCaller) {
  const auto run = *scratch_ / "launcher";
  const auto e =
      harm(run, 2, [](test::Process& job, const std::vector<pid_t>&) { job.signal(SIGSTOP); });
  EXPECT_NE(e.code, 0);
  // What ranks print goes through the launcher; the report does not.
  EXPECT_THAT(test::slurp(run / "hang-report.json"), testing::HasSubstr("the launcher"));
  expect_continues(run);
}

TEST_F(Hang, ADeadRankEndsTheJob) {
  const auto run = *scratch_ / "dead";
  const auto e =
      harm(run, 3, [](test::Process&, const std::vector<pid_t>& pids) { kill(pids[2], SIGKILL); });
  EXPECT_NE(e.code, 0);
  EXPECT_THAT(e.err, testing::HasSubstr("rank 2"));  // mpirun says who
  expect_continues(run);
}

TEST_F(Hang, AKilledLauncherLeavesNoRank) {
  const auto run = *scratch_ / "orphans";
  const auto e =
      harm(run, 2, [](test::Process& job, const std::vector<pid_t>&) { job.signal(SIGKILL); });
  EXPECT_EQ(e.code, 128 + SIGKILL);
  expect_continues(run);
}

TEST_F(Hang, SignalsToOneRankStopAllAtOneStep) {
  const auto run = *scratch_ / "signal";
  const auto e =
      harm(run, 3, [](test::Process&, const std::vector<pid_t>& pids) { kill(pids[1], SIGUSR1); });
  EXPECT_EQ(e.code, 75) << e.err;
  const Json state = Json::parse(test::slurp(test::latest(run) / "state.json"));
  EXPECT_EQ(state["step"].get<uint64_t>(), last_step(run));
  expect_continues(run);
}

}  // namespace
}  // namespace nf

// Ranks that die, freeze or stand still in a real mpirun job, in each part of a run: the whole job
// is gone soon, the rank is named, no process is left, and the same command continues the run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "core/jsonl.h"
#include "tests/support/tiny_run.h"
#include "trainer/checkpoint/checkpoint.h"

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
  // Starts a job, waits for the moment (by default: until it trains), does `harm` to its ranks and
  // waits for the end.
  using Harm = std::function<void(test::Process&, const std::vector<pid_t>&)>;
  Ended harm(const std::filesystem::path& run, int ranks, const Harm& harm,
             const std::vector<std::string>& more = {}) {
    const auto training = [&](test::Process&) { return last_step(run) >= 8; };
    return harm_when(training, test::mpirun(ranks, command(run, more)), ranks, harm);
  }
  Ended harm_when(const std::function<bool(test::Process&)>& moment,
                  const std::vector<std::string>& argv, int ranks, const Harm& harm) {
    test::Process job(argv, *scratch_ / "out", *scratch_ / "err");
    EXPECT_TRUE(wait_for([&] { return moment(job) || !job.running(); }, 120));
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

  // The command of a job in which `rank` cannot read files that begin with `prefix` while the file
  // `when` exists.
  std::vector<std::string> with_stalls(int ranks, int rank, const std::string& prefix,
                                       const std::filesystem::path& run,
                                       const std::vector<std::string>& more) const {
    auto argv = test::mpirun(ranks, command(run, more));
    const std::vector<std::string> environment = {
        "-x", std::string("LD_PRELOAD=") + NF_DISK_FAULTS,
        "-x", "NF_STALL_WHEN=" + (*scratch_ / "stalled").string(),
        "-x", "NF_STALL_UNDER=" + (*scratch_ / "data" / prefix).string(),
        "-x", "NF_STALL_RANK=" + std::to_string(rank)};
    argv.insert(argv.begin() + 1, environment.begin(), environment.end());
    return argv;
  }
  static void stall() { std::ofstream(*scratch_ / "stalled") << "now\n"; }
  static void go_on() { std::filesystem::remove(*scratch_ / "stalled"); }

  static std::unique_ptr<test::TempDir> scratch_;
};
std::unique_ptr<test::TempDir> Hang::scratch_;

TEST_F(Hang, AFrozenRankIsNamed) {
  const auto run = *scratch_ / "frozen";
  const auto e = harm(run, 3, [](test::Process&, const std::vector<pid_t>& pids) {
    std::this_thread::sleep_for(milliseconds(1500));  // heartbeats of steps: 0.4 s apart
    kill(pids[1], SIGSTOP);
  });
  EXPECT_EQ(e.code, 5) << e.err;
  EXPECT_THAT(e.err, testing::HasSubstr("rank 1 on "));
  EXPECT_THAT(e.err, testing::HasSubstr("no sign of life"));
  const Json report = Json::parse(test::slurp(run / "hang-report.json"));
  EXPECT_EQ(report["suspect"]["rank"], 1);
  EXPECT_EQ(report["suspect"]["section"], "step");
  EXPECT_GE(report["suspect"]["step"].get<int>(), 1);  // of its last heartbeat
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

// While the ranks look for each other: nothing is known of the run yet.
TEST_F(Hang, DeadOrFrozenWhileItStarts) {
  for (const int signal : {SIGKILL, SIGSTOP}) {
    const auto run = *scratch_ / ("start" + std::to_string(signal));
    const auto there = [](test::Process& job) { return job.children().size() == 3; };
    const auto e =
        harm_when(there, test::mpirun(3, command(run)), 3,
                  [&](test::Process&, const std::vector<pid_t>& pids) {
                    std::this_thread::sleep_for(milliseconds(signal == SIGKILL ? 0 : 60));
                    kill(pids[1], signal);
                  });
    EXPECT_NE(e.code, 0) << signal;
    EXPECT_FALSE(std::filesystem::exists(run / "result.json"));
    const auto o = test::run(command(run, {"limit.steps=3"}));
    EXPECT_EQ(o.code, 0) << o.err;
  }
}

TEST_F(Hang, AStoppedLauncherWhileItStarts) {
  const auto run = *scratch_ / "start-launcher";
  const auto there = [](test::Process& job) { return job.children().size() == 2; };
  const auto e = harm_when(there, test::mpirun(2, command(run)), 2,
                           [](test::Process& job, const auto&) { job.signal(SIGSTOP); });
  EXPECT_NE(e.code, 0);
  EXPECT_EQ(test::run(command(run, {"limit.steps=3"})).code, 0);
}

TEST_F(Hang, DeadOrFrozenWhileRankZeroSaves) {
  for (const int signal : {SIGKILL, SIGSTOP}) {
    const auto run = *scratch_ / ("save" + std::to_string(signal));
    const auto saving = [&](test::Process&) {
      std::error_code none;
      for (const auto& entry : std::filesystem::directory_iterator(run / "checkpoints", none))
        if (entry.path().filename().string().starts_with(".tmp.step")) return true;
      return false;
    };
    const auto argv = test::mpirun(2, command(run, {"checkpoint.every_steps=2"}));
    const auto e = harm_when(saving, argv, 2, [&](test::Process&, const std::vector<pid_t>& pids) {
      kill(pids[0], signal);
    });
    EXPECT_NE(e.code, 0);
    EXPECT_THAT(e.err, testing::HasSubstr("rank 0"));
    expect_continues(run);
  }
}

// All wait in the evaluation for rank 1, which cannot read and then dies or freezes.
TEST_F(Hang, DeadOrFrozenInAnEvaluation) {
  for (const int signal : {SIGKILL, SIGSTOP}) {
    const auto run = *scratch_ / ("evaluate" + std::to_string(signal));
    const auto argv =
        with_stalls(2, 1, "holdout", run,
                    {"evaluate.every_steps=24", "evaluate.chunk=8", "checkpoint.every_steps=6"});
    const auto evaluating = [&](test::Process&) {
      if (std::filesystem::exists(run / "checkpoints/latest")) stall();  // not while it starts
      return std::filesystem::exists(train::checkpoint_path(run / "checkpoints", 24));
    };
    const auto e =
        harm_when(evaluating, argv, 2, [&](test::Process&, const std::vector<pid_t>& pids) {
          std::this_thread::sleep_for(milliseconds(1500));  // its last heartbeat says so
          kill(pids[1], signal);
        });
    go_on();
    EXPECT_NE(e.code, 0);
    EXPECT_THAT(e.err, testing::HasSubstr("rank 1"));
    if (signal == SIGSTOP) {
      const Json report = Json::parse(test::slurp(run / "hang-report.json"));
      EXPECT_EQ(report["suspect"]["section"], "evaluate");
    }
    expect_continues(run);
  }
}

// Alive, its heartbeats come, but it waits for data that never come: the others are not at fault.
TEST_F(Hang, ARankWhoseLoaderStalls) {
  const auto run = *scratch_ / "loader";
  const auto training = [&](test::Process&) { return last_step(run) >= 8; };
  const auto e = harm_when(training, with_stalls(3, 2, "train", run, {}), 3,
                           [&](test::Process&, const std::vector<pid_t>&) { stall(); });
  go_on();
  EXPECT_EQ(e.code, 5) << e.err;
  EXPECT_THAT(e.err, testing::HasSubstr("rank 2 on "));
  const Json report = Json::parse(test::slurp(run / "hang-report.json"));
  EXPECT_EQ(report["suspect"]["rank"], 2);
  EXPECT_EQ(report["suspect"]["section"], "step");
  EXPECT_EQ(report["suspect"]["waiting_for"], "data");
  expect_continues(run);
}

// Its run is done and MPI has ended: no other rank waits, only the launcher.
TEST_F(Hang, ARankThatStopsWhileItsProcessEnds) {
  const auto run = *scratch_ / "exit";
  const auto command_of_two = test::mpirun(2, command(run, {"limit.steps=4"}));
  auto argv = command_of_two;
  const std::vector<std::string> stop = {"-x", "LD_PRELOAD=" NF_STOP_AT_EXIT, "-x",
                                         "NF_STOP_AT_EXIT=1"};
  argv.insert(argv.begin() + 1, stop.begin(), stop.end());
  const auto stopped = test::run(argv);
  EXPECT_NE(stopped.code, 0);
  EXPECT_THAT(stopped.err, testing::HasSubstr("was stopped for"));
  EXPECT_TRUE(std::filesystem::exists(run / "result.json"));
  EXPECT_EQ(test::run(command_of_two).code, 0);
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

// What else happens to jobs on a real Slurm, one case each: the time limit, a node that dies under
// the ranks or under the batch script, a job killed before it could save, preemption during the
// final evaluation, jobs that must not come back, and what a user may do wrong. Every job ends
// COMPLETED with its result.json and the bits of an undisturbed run, or FAILED with nf-train's
// code.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/slurm/slurm_runs.h"

namespace nf::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using Strings = std::vector<std::string>;

size_t requeues(const SlurmLab& lab, const SlurmRun& run) {
  return lab.ended().at(run.job).size() - 1;
}

// The ranks of the runs under way here.
std::vector<pid_t> ranks() {
  std::vector<pid_t> found;
  for (const pid_t pid : descendants(getpid())) {
    const fs::path proc = fs::path("/proc") / std::to_string(pid);
    std::error_code error;
    if (fs::read_symlink(proc / "exe", error).filename() == "nf-train" && !error)
      found.push_back(pid);
  }
  return found;
}

void wait_for_steps(const SlurmRun& run, int64_t more) {
  const int64_t before = SlurmRuns::step(run);
  wait_until("steps of " + run.name, [&] { return SlurmRuns::step(run) >= before + more; });
}

TEST(Slurm, TimeLimitIsOneOfManyLives) {
  SlurmLab lab({.nodes = 1});
  SlurmRuns runs(lab, 120);  // 1,160 steps: longer than 10 s on any machine
  // Asked 50 s before the end of a minute, and Slurm may be early.
  const auto all = runs.submit("limited", {"--time", "1", "--signal-seconds", "50"});
  wait_until("the second life", [&] { return SlurmRuns::lives(all[0]) == 2; });
  EXPECT_EQ(run({"scontrol", "update", "JobId=" + all[0].job, "TimeLimit=UNLIMITED"}).code, 0);
  runs.wait(all);
  EXPECT_EQ(runs.differences(all[0]), "");
  EXPECT_GE(requeues(lab, all[0]), 1u);
  EXPECT_THAT(slurp(all[0].log), HasSubstr("USR1: asking the ranks to save"));
}

TEST(Slurm, ANodeDiesUnderTheRanksAndUnderTheScript) {
  SlurmLab lab({.nodes = 2});
  SlurmRuns runs(lab, 5);
  const auto all = runs.submit("node", {"--nodes", "2", "--ranks", "2"});
  const SlurmRun& run = all[0];
  for (const int node : {2, 1}) {  // n1 has the batch script
    const size_t lives = SlurmRuns::lives(run);
    wait_for_steps(run, 8);
    lab.kill_node(node);
    std::this_thread::sleep_for(std::chrono::seconds(1));
    lab.start_node(node);
    wait_until("the next life", [&] { return SlurmRuns::lives(run) > lives; });
  }
  runs.wait(all);
  EXPECT_EQ(runs.differences(run), "");
  EXPECT_EQ(requeues(lab, run), 2u);
}

TEST(Slurm, KilledBeforeItCouldSave) {
  SlurmLab lab({.nodes = 1, .grace_seconds = 0});
  SlurmRuns runs(lab, 3, {{"checkpoint.every_steps", "100000"}});
  const auto all = runs.submit("unsaved", {"--ranks", "2"});
  wait_for_steps(all[0], 5);
  for (const pid_t rank : ranks()) kill(rank, SIGSTOP);  // deaf to every request
  lab.release(lab.take());
  wait_for_steps(all[0], 1);
  const auto here = ranks();
  ASSERT_FALSE(here.empty());
  kill(here[0], SIGKILL);  // and once by a fault of its own
  runs.wait(all);
  EXPECT_EQ(runs.differences(all[0]), "");
  EXPECT_EQ(requeues(lab, all[0]), 2u);
}

TEST(Slurm, PreemptedDuringTheFinalEvaluation) {
  // The job is killed within 5 s of being asked (see KillWait); the evaluation is far longer.
  SlurmLab lab({.nodes = 1, .grace_seconds = 0});
  SlurmRuns runs(lab, 1, {{"evaluate.image_size", "1024"}, {"evaluate.chunk", "1"}});
  const int64_t last = runs.last_step();
  const auto all = runs.submit("evaluating", {});
  const SlurmRun& run = all[0];
  wait_until("the last step", [&] { return SlurmRuns::step(run) == last; });
  lab.release(lab.take());
  EXPECT_FALSE(fs::exists(run.directory / "result.json"))
      << "the evaluation ended before it could be preempted";
  runs.wait(all);
  EXPECT_EQ(runs.differences(run), "");
  EXPECT_EQ(requeues(lab, run), 1u);
}

TEST(Slurm, WhatCannotBeMendedIsNotTriedAgain) {
  SlurmLab lab({.nodes = 1});
  SlurmRuns runs(lab, 6);
  const auto damaged = runs.submit("damaged", {});
  wait_for_steps(damaged[0], 5);
  lab.release(lab.take());
  fs::rename(runs.folder() / "data", runs.folder() / "gone");
  wait_until("the end of the job", [&] { return lab.states(damaged[0].job).empty(); });
  EXPECT_THAT(lab.ended().at(damaged[0].job), ElementsAre("PENDING", "FAILED"));
  EXPECT_THAT(slurp(damaged[0].log), HasSubstr("exit code 3: another try cannot mend this"));
  fs::rename(runs.folder() / "gone", runs.folder() / "data");

  // A run that never gets anywhere is given up.
  fs::create_directories(runs.folder() / "bin");
  std::ofstream(runs.folder() / "bin/nf-train") << "#!/bin/sh\ncase \"$*\" in *--dry-run*) echo "
                                                   "'[batch]'; echo 'micro_batches = 4';; *) exit "
                                                   "5;; esac\n";
  fs::permissions(runs.folder() / "bin/nf-train", fs::perms::owner_all);
  const auto stuck =
      runs.submit("stuck", {"--max-restarts", "1", "--programs", (runs.folder() / "bin").string()});
  wait_until("the end of the job", [&] { return lab.states(stuck[0].job).empty(); });
  EXPECT_THAT(lab.ended().at(stuck[0].job), ElementsAre("PENDING", "FAILED"));
  EXPECT_THAT(slurp(stuck[0].log), HasSubstr("given up"));

  // The same run is not submitted twice, and what Slurm refuses is told.
  const auto twice = runs.submit("twice", {});
  const Strings again = {program("nf-launch").string(), "sbatch",   "--config",
                         runs.config().string(),        "--output", twice[0].directory.string()};
  const Outcome refused = run(again);
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("works on this run already"));
  Strings elsewhere = again;
  elsewhere.back() = (runs.folder() / "elsewhere").string();
  elsewhere.insert(elsewhere.end(), {"--partition", "nowhere"});
  const Outcome unknown = run(elsewhere);
  EXPECT_EQ(unknown.code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("invalid partition"));
}

}  // namespace
}  // namespace nf::test

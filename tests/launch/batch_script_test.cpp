// The batch script without a cluster: what stands in it, and what it does when the program ends one
// way or another, with bash, a fake scontrol that ends it as Slurm would, and a fake program.
#include "launch/batch_script.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "launch/restart_policy.h"
#include "tests/support/process.h"

namespace nf::launch {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr int kRequeued = 128 + SIGTERM;

void write_program(const fs::path& file, const std::string& text) {
  std::ofstream(file) << "#!/bin/bash\n" << text;
  fs::permissions(file, fs::perms::owner_all);
}

class Script : public testing::Test {
 protected:
  Script() {
    fs::create_directories(dir_ / "bin");
    write_program(dir_ / "bin/scontrol", "echo \"$@\" >>'" + (dir_ / "calls").string() +
                                             "'\n(sleep 0.2; kill -TERM $PPID) &\n");
    write_program(dir_ / "bin/mpirun", "shift 4; exec \"$@\"\n");
    fs::create_directories(run_dir() / "checkpoints");
  }
  fs::path run_dir() const { return dir_ / "run o'clock"; }
  BatchJob job() const {
    BatchJob j;
    j.title = "A test.";
    j.program = "a test";
    j.name = "test";
    j.log = "/dev/null";
    j.folder = "/tmp";
    BatchRun run;
    run.run_dir = run_dir().string();
    run.words = {(dir_ / "bin/program").string(), "--set", "key='a b'"};
    run.done_file = (run_dir() / "result.json").string();
    run.exit_file = (dir_ / "exit").string();
    j.runs = {run};
    return j;
  }
  // One life of the job, `program` being what it runs.
  int live(const std::string& program, const std::string& environment = "") {
    write_program(dir_ / "bin/program", program);
    std::ofstream(dir_ / "job.sbatch") << batch_script(job(), resources_);
    const test::Outcome o =
        test::run({"bash", "-c",
                   "PATH='" + (dir_ / "bin").string() + "':$PATH SLURM_JOB_ID=7 " + environment +
                       " bash '" + (dir_ / "job.sbatch").string() + "'"});
    said_ = o.out + o.err;
    return o.code;
  }
  std::string checkpoint(int step) const {
    return "echo step_00000000" + std::to_string(step) + " >'" + quoted_run_dir() +
           "/checkpoints/latest'\n";
  }
  std::string result() const { return "echo {} >'" + quoted_run_dir() + "/result.json'\n"; }
  std::string quoted_run_dir() const { return (dir_ / "run o'\\''clock").string(); }
  std::string calls() const { return test::slurp(dir_ / "calls"); }

  test::TempDir dir_;
  BatchResources resources_;
  std::string said_;
};

TEST_F(Script, DoneIsExitZeroAndAResult) {
  EXPECT_EQ(live("[ \"$2\" = \"key='a b'\" ] || exit 9\n" + result()), 0) << said_;
  EXPECT_EQ(calls(), "");
  EXPECT_THAT(test::slurp(dir_ / "exit"), StartsWith("0 "));
  fs::remove(run_dir() / "result.json");
  EXPECT_EQ(live("exit 0\n"), kRequeued) << said_;
  EXPECT_EQ(calls(), "requeue 7\n");
  EXPECT_THAT(said_, HasSubstr("exit code 0 without"));
  EXPECT_FALSE(fs::exists(dir_ / "exit"));
}

TEST_F(Script, WhatCannotBeMendedEndsTheJobWithItsCode) {
  for (const int code : final_codes()) {
    EXPECT_EQ(live("exit " + std::to_string(code) + "\n"), code) << said_;
    EXPECT_THAT(test::slurp(dir_ / "exit"), StartsWith(std::to_string(code) + " "));
  }
  EXPECT_EQ(calls(), "");
  for (const char* code : {"75", "5", "1", "137", "205"})
    EXPECT_EQ(live(checkpoint(1) + "exit " + code + "\n"), kRequeued) << said_;
}

TEST_F(Script, AnArrayElementRequeuesItself) {
  EXPECT_EQ(live("exit 75\n", "SLURM_ARRAY_JOB_ID=5 SLURM_ARRAY_TASK_ID=3"), kRequeued);
  EXPECT_EQ(calls(), "requeue 5_3\n");
}

TEST_F(Script, RestartsWithoutProgressAreBounded) {
  resources_.max_restarts = 2;
  EXPECT_EQ(live(checkpoint(5) + "exit 5\n"), kRequeued);
  for (int restart = 1; restart <= 2; ++restart)  // the first finds step 5, which is new
    EXPECT_EQ(live("exit 5\n", "SLURM_RESTART_COUNT=" + std::to_string(restart)), kRequeued);
  // Progress starts the count anew.
  EXPECT_EQ(live(checkpoint(6) + "exit 5\n", "SLURM_RESTART_COUNT=3"), kRequeued);
  EXPECT_EQ(live("exit 5\n", "SLURM_RESTART_COUNT=4"), kRequeued);
  EXPECT_EQ(live("exit 5\n", "SLURM_RESTART_COUNT=5"), kRequeued);
  EXPECT_EQ(live("exit 5\n", "SLURM_RESTART_COUNT=6"), 5) << said_;
  EXPECT_THAT(said_, HasSubstr("given up"));
  // Killed so hard that the script never saw an end.
  EXPECT_EQ(live("exit 5\n", "SLURM_RESTART_COUNT=7"), 5) << said_;
  // A user who submits it again means it.
  EXPECT_EQ(live("exit 5\n"), kRequeued) << said_;
}

TEST_F(Script, SignalsReachTheProgramAndItsCodeComesBack) {
  const std::string wait = "trap 'exit 75' USR1\nkill -";
  for (const char* signal : {"USR1", "TERM"}) {
    // The program signals the script, as Slurm does, and waits for what the script makes of it.
    EXPECT_EQ(live(wait + signal + " $PPID\nfor i in {1..200}; do sleep 0.05; done\nexit 9\n"),
              kRequeued)
        << said_;
    EXPECT_THAT(said_, HasSubstr(std::string(signal) + ": asking the ranks to save"));
    EXPECT_THAT(said_, HasSubstr("the state is saved"));
  }
}

TEST_F(Script, DirectivesAreThoseAskedFor) {
  resources_.nodes = 2;
  resources_.gpus_per_node = 4;
  resources_.cpus_per_task = 3;
  resources_.partition = "gpu";
  resources_.time = "12:00:00";
  resources_.signal_seconds = 90;
  resources_.launcher = "srun";
  resources_.more = {"--constraint=a100"};
  const std::string text = batch_script(job(), resources_);
  for (const char* line :
       {"#SBATCH --nodes=2\n", "#SBATCH --ntasks=8\n", "#SBATCH --ntasks-per-node=4\n",
        "#SBATCH --gpus-per-node=4\n", "#SBATCH --partition=gpu\n", "#SBATCH --time=12:00:00\n",
        "#SBATCH --signal=B:USR1@90\n", "#SBATCH --requeue\n", "#SBATCH --open-mode=append\n",
        "#SBATCH --constraint=a100\n", "srun --mpi=pmix", "--cpus-per-task=3"})
    EXPECT_THAT(text, HasSubstr(line));
  EXPECT_THAT(text, Not(HasSubstr("{{")));
  resources_.partition = "two words' worth";
  EXPECT_THROW(batch_script(job(), resources_), Error);
}

TEST_F(Script, ElementsOfAnArrayAreRunsOfTheirOwn) {
  BatchJob array = job();
  array.array = "0-1%1";
  array.kind = BatchKind::kTemplate;
  array.runs[0].words.push_back("run.seed={task}");
  EXPECT_THAT(batch_script(array, resources_), HasSubstr("'run.seed='\"$SLURM_ARRAY_TASK_ID\"''"));
  array.kind = BatchKind::kList;
  array.runs.push_back(array.runs[0]);
  array.runs[1].run_dir = "/second";
  const std::string text = batch_script(array, resources_);
  EXPECT_THAT(text, HasSubstr("#SBATCH --array=0-1%1\n"));
  EXPECT_THAT(text, HasSubstr("  1)\n    run_dir='/second'\n"));
}

}  // namespace
}  // namespace nf::launch

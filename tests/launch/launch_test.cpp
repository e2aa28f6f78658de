// nf-launch as a user calls it: local runs that survive kills of ranks and of mpirun, stop when
// they are asked to and give up when nothing helps; and what sbatch refuses before it submits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/jsonl.h"
#include "tests/support/process.h"

namespace nf::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using Strings = std::vector<std::string>;

class Launch : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = new TempDir;
    make_shapes_dataset(*dir_ / "data", 29, 40);
    std::ofstream(*dir_ / "run.toml")
        << "run.threads_per_rank = 1\ndata.image_size = 32\ndata.path = "
        << Json((*dir_ / "data").string()).dump()
        << "\nmodel.name = 'nfnet_pico'\nmodel.depths = [1, 1, 1, 1]\n"
        << "model.widths = [32, 32, 64, 64]\nbatch.size = 12\nbatch.micro_batches = 4\n"
        << "schedule.epochs = 5\noptimizer.learning_rate = 0.1\ncheckpoint.every_steps = 5\n"
        << "log.tensorboard = false\n";
    unsetenv("SLURM_CONF");
  }
  static void TearDownTestSuite() {
    delete dir_;
    dir_ = nullptr;
  }
  static Strings command(const std::string& what, const std::string& output,
                         const Strings& more = {}) {
    Strings words = {program("nf-launch").string(), what,       "--config",
                     (*dir_ / "run.toml").string(), "--output", (*dir_ / output).string()};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  static size_t steps(const std::string& output) {
    size_t n = 0;
    for (const auto& line : read_jsonl(*dir_ / output / "metrics.jsonl"))
      n += line.value("kind", "") == "train" ? 1 : 0;
    return n;
  }
  static std::string sha(const std::string& output) {
    return Json::parse(slurp(*dir_ / output / "result.json"))["model_sha256"];
  }
  static void wait_for_steps(Process& process, const std::string& output, size_t more) {
    const size_t before = steps(output);
    while (process.running() && steps(output) < before + more)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  // A program in nf-train's place that knows --dry-run and ends with `code` otherwise.
  static std::string fake_programs(int code) {
    const fs::path folder = *dir_ / std::string("fake").append(std::to_string(code));
    fs::create_directories(folder);
    std::ofstream(folder / "nf-train")
        << "#!/bin/sh\necho life >>" << (folder / "lives").string()
        << "\ncase \"$*\" in *--dry-run*) echo '[batch]'; echo 'micro_batches = 4';; *) exit "
        << code << ";; esac\n";
    fs::permissions(folder / "nf-train", fs::perms::owner_all);
    return folder.string();
  }
  static TempDir* dir_;
};
TempDir* Launch::dir_ = nullptr;

TEST_F(Launch, LocalRunsSurviveKillsAndStopWhenAsked) {
  const Outcome calm = run(command("local", "calm"));
  ASSERT_EQ(calm.code, 0) << calm.err;

  pid_t rank = 0;
  {
    Process launch(command("local", "killed", {"--ranks", "2"}), *dir_ / "out", *dir_ / "err");
    wait_for_steps(launch, "killed", 8);
    ASSERT_FALSE(launch.children().empty());
    const pid_t mpirun = launch.children()[0];
    std::ifstream in("/proc/" + std::to_string(mpirun) + "/task/" + std::to_string(mpirun) +
                     "/children");
    in >> rank;
    ASSERT_GT(rank, 0);
    kill(rank, SIGKILL);
    wait_for_steps(launch, "killed", 8);
    ASSERT_FALSE(launch.children().empty());
    kill(launch.children()[0], SIGKILL);  // mpirun of the second life
    wait_for_steps(launch, "killed", 8);
    launch.signal(SIGTERM);
    EXPECT_EQ(launch.wait(), 75) << slurp(*dir_ / "err");
    EXPECT_THAT(slurp(*dir_ / "err"), HasSubstr("again in 1 s"));
    EXPECT_FALSE(fs::exists(*dir_ / "killed/result.json"));
  }
  const Outcome last = run(command("local", "killed", {"--ranks", "4"}));
  EXPECT_EQ(last.code, 0) << last.err;
  // A finished run has nothing left to do, on any number of ranks.
  const Outcome over = run(command("local", "killed", {"--ranks", "2", "--max-restarts", "0"}));
  EXPECT_EQ(over.code, 0) << over.err;
  EXPECT_EQ(sha("killed"), sha("calm"));
  EXPECT_EQ(slurp(*dir_ / "killed/ledger.jsonl"), slurp(*dir_ / "calm/ledger.jsonl"));
  EXPECT_EQ(steps("killed"), steps("calm"));
}

TEST_F(Launch, LocalGivesUpWhereNothingHelps) {
  const Outcome stuck =
      run(command("local", "stuck", {"--max-restarts", "1", "--programs", fake_programs(5)}));
  EXPECT_EQ(stuck.code, 5);
  EXPECT_THAT(stuck.err, HasSubstr("given up"));
  EXPECT_EQ(slurp(fs::path(fake_programs(5)) / "lives"), "life\nlife\nlife\n");  // one to ask
  for (const int code : {2, 3, 4, 6}) {
    EXPECT_EQ(run(command("local", "final", {"--programs", fake_programs(code)})).code, code);
    EXPECT_EQ(slurp(fs::path(fake_programs(code)) / "lives"), "life\nlife\n");
  }
  const Outcome quiet =
      run(command("local", "quiet", {"--max-restarts", "0", "--programs", fake_programs(0)}));
  EXPECT_EQ(quiet.code, 1) << "0 without result.json is no success";
}

TEST_F(Launch, FaultsAreToldBeforeAnythingIsStarted) {
  for (const char* what : {"local", "sbatch"}) {
    const Outcome key = run(command(what, "bad", {"--set", "batch.sise=3"}));
    EXPECT_EQ(key.code, 2);
    EXPECT_THAT(key.err, HasSubstr("batch.size")) << "the nearest key";
    const Outcome data = run(command(what, "bad", {"--set", "data.path=nowhere"}));
    EXPECT_EQ(data.code, 3) << data.err;
    const Outcome ranks = run(command(what, "bad", {"--ranks", "5"}));
    EXPECT_EQ(ranks.code, 2);
    EXPECT_THAT(ranks.err, HasSubstr("5 ranks, but a batch has only 4 micro-batches"));
    const Outcome programs = run(command(what, "bad", {"--programs", "/nowhere"}));
    EXPECT_EQ(programs.code, 2);
    EXPECT_THAT(programs.err, HasSubstr("nf-train is not here"));
  }
  Strings bare = {"env", "PATH=/nowhere"};
  for (const auto& word : command("sbatch", "bad")) bare.push_back(word);
  const Outcome slurmless = run(bare);
  EXPECT_EQ(slurmless.code, 2);
  EXPECT_THAT(slurmless.err, HasSubstr("not on the PATH"));
  EXPECT_THAT(slurmless.err, HasSubstr("hint: "));
  EXPECT_FALSE(fs::exists(*dir_ / "bad"));
}

TEST_F(Launch, PrintShowsTheScriptAndLeavesNothing) {
  for (const char* flag : {"--print", "--dry-run"}) {
    const Outcome o = run(command(
        "sbatch", "printed", {flag, "--nodes", "2", "--array", "1-3", "--set", "run.seed={task}"}));
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_THAT(o.out, HasSubstr("#SBATCH --signal=B:USR1@120\n#SBATCH --requeue\n"));
    EXPECT_THAT(o.out, HasSubstr("'run.seed='\"$SLURM_ARRAY_TASK_ID\"''"));
    EXPECT_THAT(o.out, HasSubstr("mpirun --bind-to none -np 2"));
  }
  EXPECT_FALSE(fs::exists(*dir_ / "printed"));
}

}  // namespace
}  // namespace nf::test

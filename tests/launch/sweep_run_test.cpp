// nf-sweep run with real processes, mpirun and a fake nf-train: the table of an undisturbed sweep
// comes out of one whose controller is killed at random and of two controllers at once; no training
// is finished twice.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "analysis/run_table.h"
#include "core/rng.h"
#include "tests/support/process.h"

namespace nf::test {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

class SweepRun : public testing::Test {
 protected:
  SweepRun() {
    fs::create_directories(dir_ / "bin");
    for (const char* name : {"nf-train", "nf-audit"})
      fs::create_symlink(fs::path(NF_BIN_DIR).parent_path() / "tests/sweep_fake_train",
                         dir_ / "bin" / name);
    setenv("FINISHED_LOG", (dir_ / "finished").c_str(), 1);
    std::ofstream(dir_ / "SWEEP.toml")
        << "models = ['nfnet_pico', 'nfnet_nano']\nepochs = [0.5, 1]\nimage_size = 32\n"
        << "[data]\npath = 'nowhere'\nimages_per_epoch = 500\nclasses = 1000\n"
        << "[lr]\npolicy = 'bracket'\n[run]\nparallel = 2\n";
  }
  std::vector<std::string> command(const std::string& what, const std::string& output) {
    std::vector<std::string> words = {
        program("nf-sweep").string(),   what,       "--config",
        (dir_ / "SWEEP.toml").string(), "--output", (dir_ / output).string()};
    if (what == "run") {
      words.push_back("--programs");
      words.push_back((dir_ / "bin").string());
    }
    return words;
  }
  analysis::RunTable table(const std::string& output) {
    return analysis::read_run_table(dir_ / output / "results.csv");
  }
  // What must not depend on what happened on the way: all but hours and restarts.
  std::set<std::string> outcome(const std::string& output) {
    std::set<std::string> lines;
    for (const auto& r : table(output).runs)
      lines.insert(r.run + " " + analysis::status_name(r.status) + " " +
                   std::to_string(r.learning_rate) + " " + std::to_string(r.heldout_loss));
    return lines;
  }
  // Trainings that ended, and how many of them twice.
  std::pair<size_t, size_t> finished() {
    std::ifstream in(dir_ / "finished");
    std::multiset<std::string> all;
    for (std::string line; std::getline(in, line);) all.insert(line);
    const std::set<std::string> different(all.begin(), all.end());
    return {all.size(), all.size() - different.size()};
  }
  TempDir dir_;
};

TEST_F(SweepRun, EndsWithATableThatFitsRead) {
  const Outcome o = run(command("run", "calm"));
  ASSERT_EQ(o.code, 0) << o.err;
  const auto t = table("calm");
  size_t done = 0, diverged = 0;
  for (const auto& r : t.runs) {
    done += r.status == analysis::RunStatus::kDone ? 1 : 0;
    diverged += r.status == analysis::RunStatus::kDiverged ? 1 : 0;
    if (r.status != analysis::RunStatus::kDone) continue;
    EXPECT_EQ(r.images_missed, 0);
    EXPECT_EQ(r.heldout_loss_se, 0.01);
  }
  EXPECT_EQ(done + diverged, t.runs.size());
  EXPECT_EQ(done + diverged, finished().first);
  EXPECT_GE(done, 8u);
  EXPECT_GE(diverged, 1u) << "the surface has a cliff, and it must have been met";

  // Again: nothing is trained. status and collect work on the folder.
  EXPECT_EQ(run(command("run", "calm")).code, 0);
  EXPECT_EQ(finished().second, 0u);
  const std::string csv = slurp(dir_ / "calm/results.csv");
  fs::remove(dir_ / "calm/results.csv");
  EXPECT_EQ(run(command("collect", "calm")).code, 0);
  EXPECT_EQ(slurp(dir_ / "calm/results.csv"), csv);
  EXPECT_THAT(run(command("status", "calm")).out, HasSubstr("finished"));

  // Other values in the same folder are refused.
  auto other = command("run", "calm");
  other.insert(other.end(), {"--set", "batch=32"});
  const Outcome refused = run(other);
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("batch"));
}

TEST_F(SweepRun, KilledAtRandomAndTwoAtOnceChangeNothing) {
  ASSERT_EQ(run(command("run", "calm")).code, 0);
  const auto expected = outcome("calm");
  const size_t trainings = finished().first;
  fs::remove(dir_ / "finished");

  PositionRng random(11, Stream::kTest, 0);
  int kills = 0;
  for (bool ended = false; !ended;) {
    Process controller(command("run", "killed"), dir_ / "out", dir_ / "err");
    const auto patience = std::chrono::milliseconds(300 + random.below(1500));
    const auto deadline = std::chrono::steady_clock::now() + (kills < 6 ? patience : patience * 99);
    while (controller.running() && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ended = !controller.running();
    if (ended) {
      EXPECT_EQ(controller.wait(), 0) << slurp(dir_ / "err");
    } else {
      controller.signal(random.below(2) == 0 ? SIGKILL : SIGTERM);
      controller.wait();
      ++kills;
    }
  }
  EXPECT_GT(kills, 0);
  EXPECT_EQ(outcome("killed"), expected);
  fs::remove(dir_ / "finished");

  Process first(command("run", "shared"), dir_ / "out1", dir_ / "err1");
  Process second(command("run", "shared"), dir_ / "out2", dir_ / "err2");
  EXPECT_EQ(first.wait(), 0) << slurp(dir_ / "err1");
  EXPECT_EQ(second.wait(), 0) << slurp(dir_ / "err2");
  EXPECT_EQ(outcome("shared"), expected);
  EXPECT_EQ(finished(), (std::pair<size_t, size_t>(trainings, 0)));
}

TEST_F(SweepRun, AFailedTrialIsToldAndTriedAgainNextTime) {
  setenv("FAKE_FAIL", "1", 1);
  const Outcome o = run(command("run", "failing"));
  unsetenv("FAKE_FAIL");
  EXPECT_EQ(o.code, 1);
  EXPECT_THAT(o.err, HasSubstr("failed nfnet_nano"));
  bool failed = false;
  for (const auto& r : table("failing").runs) {
    failed = failed || r.status == analysis::RunStatus::kFailed;
    EXPECT_EQ(r.status == analysis::RunStatus::kFailed, r.model == "nfnet_nano") << r.run;
  }
  EXPECT_TRUE(failed);
  EXPECT_EQ(run(command("run", "failing")).code, 0);
  for (const auto& r : table("failing").runs)
    EXPECT_NE(r.status, analysis::RunStatus::kFailed) << r.run;
  EXPECT_EQ(finished().second, 0u);
}

}  // namespace
}  // namespace nf::test

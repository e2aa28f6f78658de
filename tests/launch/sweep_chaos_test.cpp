// The smoke sweep with the real programs, its controller or one of its ranks killed every few
// seconds: losses and model hashes of results.csv are those of the undisturbed sweep.
#include <gtest/gtest.h>

#include <map>

#include "core/rng.h"
#include "tests/support/sweep_results.h"

namespace nf::test {
namespace {

namespace fs = std::filesystem;

class SweepChaos : public testing::Test {
 protected:
  SweepChaos() { make_shapes_dataset(dir_ / "set", 60, 100); }
  std::vector<std::string> command(const std::string& output) {
    return {program("nf-sweep").string(),
            "run",
            "--config",
            (source_dir() / "configs/sweeps/smoke.toml").string(),
            "--set",
            "data.path=" + (dir_ / "set").string(),
            "--set",
            "epochs=[0.5, 1]",
            "--set",
            "models=['nfnet_pico']",
            "--output",
            (dir_ / output).string()};
  }
  std::map<std::string, std::string> results(const std::string& output) {
    return sweep_results(dir_ / output / "results.csv");
  }
  // A rank of one of the controller's trials, or 0.
  static pid_t some_rank(const Process& controller) {
    for (const pid_t trial : controller.children()) {
      std::ifstream in("/proc/" + std::to_string(trial) + "/task/" + std::to_string(trial) +
                       "/children");
      if (pid_t rank = 0; in >> rank) return rank;
    }
    return 0;
  }
  TempDir dir_;
};

TEST_F(SweepChaos, KillsChangeNoLossAndNoModel) {
  const Outcome calm = run(command("calm"));
  ASSERT_EQ(calm.code, 0) << calm.err;
  const auto expected = results("calm");
  ASSERT_EQ(expected.size(), 4u);
  for (const auto& [name, row] : expected)
    EXPECT_NE(row.find(" done "), std::string::npos) << name << row;

  PositionRng random(5, Stream::kTest, 0);
  int kills = 0, ranks = 0;
  for (bool ended = false; !ended;) {
    Process controller(command("killed"), dir_ / "out", dir_ / "err");
    const auto patience = std::chrono::milliseconds(1500 + random.below(2500));
    const auto deadline = std::chrono::steady_clock::now() + (kills < 5 ? patience : patience * 99);
    bool rank_killed = false;
    while (controller.running() && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      if (rank_killed || std::chrono::steady_clock::now() < deadline - patience / 3) continue;
      const pid_t rank = some_rank(controller);  // none between two trials
      rank_killed = rank > 0 && kill(rank, SIGKILL) == 0;
      if (rank_killed) ++ranks;
    }
    ended = !controller.running();
    if (ended) {
      EXPECT_EQ(controller.wait(), 0) << slurp(dir_ / "err");
      break;
    }
    controller.signal(SIGKILL);
    controller.wait();
    ++kills;
  }
  EXPECT_GT(kills, 0);
  EXPECT_GT(ranks, 0);
  EXPECT_EQ(results("killed"), expected);
}

}  // namespace
}  // namespace nf::test

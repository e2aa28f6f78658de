// A run whose number of ranks changes with every restart of its mpirun job, 8, 1, 2, 4, 3, 8 and so
// on, every 10 steps for 200 steps: each checkpoint is that of a run on one rank that never
// stopped.
#include <gtest/gtest.h>

#include "core/hash.h"
#include "tests/support/tiny_run.h"
#include "trainer/checkpoint/checkpoint.h"

namespace nf {
namespace {
namespace fs = std::filesystem;

constexpr int kSteps = 200, kPart = 10;
constexpr int kRanks[] = {8, 1, 2, 4, 3, 8};

class WorldPath : public testing::Test {
 protected:
  WorldPath() {
    test::make_shapes_dataset(scratch_ / "data", 40, 40);
    std::ofstream(scratch_ / "empty.toml") << "# all keys by --set\n";
  }
  std::vector<std::string> command(const fs::path& run, int last_step) const {
    return test::nf_train(
        (scratch_ / "empty.toml").string(), (scratch_ / "data").string(), run.string(),
        {"schedule.epochs=60", "batch.size=24", "checkpoint.every_steps=1", "checkpoint.keep=1000",
         "checkpoint.background=false", "limit.steps=" + std::to_string(last_step)});
  }
  static std::string state(const fs::path& run, uint64_t step) {
    const fs::path folder = train::checkpoint_path(run / "checkpoints", step);
    std::string all;
    for (const auto& file : test::state_files()) all += sha256_file(folder / file) + " ";
    return all;
  }

  test::TempDir scratch_;
};

TEST_F(WorldPath, EveryStepsStateIsThatOfOneRank) {
  const auto calm = test::run(command(scratch_ / "calm", kSteps));
  ASSERT_EQ(calm.code, 0) << calm.err;
  for (int begin = 0; begin < kSteps; begin += kPart) {
    const int ranks = kRanks[static_cast<size_t>(begin / kPart) % std::size(kRanks)];
    const auto argv = command(scratch_ / "path", begin + kPart);
    const auto o = ranks == 1 ? test::run(argv) : test::run(test::mpirun(ranks, argv));
    ASSERT_EQ(o.code, 0) << ranks << " ranks from step " << begin << ":\n" << o.err;
  }
  for (uint64_t step = 1; step <= kSteps; ++step) {
    ASSERT_EQ(state(scratch_ / "path", step), state(scratch_ / "calm", step)) << "step " << step;
  }
  const auto audit =
      test::run({test::program("nf-audit").string(), "run", (scratch_ / "path").string()});
  EXPECT_EQ(audit.code, 0) << audit.out << audit.err;
}

}  // namespace
}  // namespace nf

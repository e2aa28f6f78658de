// kill -9 at random moments of a real mpirun job, restarted each time on another number of ranks:
// the final weights equal those of a run that was never stopped, the ledger proves every sample,
// and the trace counts each exactly once per epoch. Pretraining, and fine-tuning with SAM.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "core/jsonl.h"
#include "core/rng.h"
#include "tests/support/tiny_run.h"

namespace nf {
namespace {

constexpr int kEpochs = 3, kSamples = 377, kHoldout = 23;

size_t starts(const std::filesystem::path& run) {
  size_t n = 0;
  for (const auto& line : read_jsonl(run / "metrics.jsonl"))
    n += line.value("kind", "") == "start" ? 1 : 0;
  return n;
}

// One life of the job: killed after a random time, mostly while it trains, sometimes while it
// starts; at the latest when it has saved twice, so a fast machine leaves steps for all kills.
// True: it ended itself.
bool live_and_die(const std::vector<std::string>& command, int ranks,
                  const std::filesystem::path& run, PositionRng& rng,
                  const test::TempDir& scratch) {
  test::Process job(test::mpirun(ranks, command), scratch / "out", scratch / "err");
  const auto begin = std::chrono::steady_clock::now();
  const auto passed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  double when = rng.uniform(0.05, 1.0);
  if (rng.uniform() < 0.8) {
    const size_t before = starts(run);
    while (job.running() && passed() < 60 && starts(run) == before)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    when = passed() + rng.uniform(0.0, 0.6);
  }
  std::string newest = test::slurp(run / "checkpoints/latest");
  int saves = 0;
  while (job.running() && passed() < when && saves < 2) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const std::string now = test::slurp(run / "checkpoints/latest");
    if (now == newest) continue;
    newest = now;
    ++saves;
  }
  if (!job.running()) return true;
  const auto ranks_alive = job.children();
  const bool whole_job = ranks_alive.empty() || rng.uniform() < 0.25;
  if (whole_job) {
    job.signal(SIGKILL);
  } else {
    kill(ranks_alive[rng.below(ranks_alive.size())], SIGKILL);
  }
  job.wait();
  for (int i = 0; i < 500; ++i) {  // mpirun's ranks go a moment after it
    bool alive = false;
    for (const pid_t p : ranks_alive) alive = alive || kill(p, 0) == 0;
    if (!alive) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

// A run that is never stopped and one that is killed `wanted` times, with the same overrides, in
// scratch/calm and scratch/killed: equal in every byte.
void expect_kills_change_nothing(const test::TempDir& scratch,
                                 const std::vector<std::string>& overrides, int wanted) {
  std::ofstream(scratch / "empty.toml") << "# all keys by --set\n";
  const auto command = [&](const std::string& out) {
    return test::nf_train((scratch / "empty.toml").string(), (scratch / "data").string(), out,
                          overrides);
  };
  const std::filesystem::path calm = scratch / "calm", killed = scratch / "killed";
  const auto reference = test::run(test::mpirun(2, command(calm.string())));
  ASSERT_EQ(reference.code, 0) << reference.err;

  const char* seed = std::getenv("NF_FAULT_SEED");
  PositionRng rng(seed ? std::strtoull(seed, nullptr, 10) : 1, Stream::kTest, 0);
  int kills = 0;
  bool ended = false;
  while (kills < wanted && !ended) {
    constexpr int kRanks[] = {1, 2, 4};
    ended = live_and_die(command(killed.string()), kRanks[rng.below(3)], killed, rng, scratch);
    if (!ended) ++kills;
  }
  EXPECT_GE(kills, wanted) << "the run ended before it could be killed often enough";
  const auto last = test::run(test::mpirun(2, command(killed.string())));
  ASSERT_EQ(last.code, 0) << last.err;

  const auto sha = [](const std::filesystem::path& run) {
    return Json::parse(test::slurp(run / "result.json"))["model_sha256"].get<std::string>();
  };
  EXPECT_EQ(sha(killed), sha(calm));
  for (const auto& file : test::state_files())
    EXPECT_EQ(test::slurp(test::latest(killed) / file), test::slurp(test::latest(calm) / file))
        << file;
  EXPECT_EQ(test::slurp(killed / "ledger.jsonl"), test::slurp(calm / "ledger.jsonl"));

  const auto audit = test::run({test::program("nf-audit").string(), "run", killed.string()});
  EXPECT_EQ(audit.code, 0) << audit.out << audit.err;
}

TEST(KillResume, TwentyKillsGiveTheBitsOfARunThatNeverStopped) {
  const test::TempDir scratch;
  test::make_shapes_dataset(scratch / "data", (kSamples + kHoldout) / 10, kHoldout);
  expect_kills_change_nothing(
      scratch,
      {"schedule.epochs=" + std::to_string(kEpochs), "batch.size=8", "data.trace=true",
       "checkpoint.every_steps=2", "model.widths=[64,64,128,128]"},
      20);
  const std::filesystem::path killed = scratch / "killed";

  // Count the trace by hand: the last line of a position counts.
  std::map<uint64_t, uint64_t> sample_of;
  for (const auto& entry : std::filesystem::directory_iterator(killed / "trace")) {
    std::ifstream in(entry.path());
    for (uint64_t step, position, epoch, sample; in >> step >> position >> epoch >> sample;) {
      EXPECT_EQ(epoch, position / kSamples);
      sample_of[position] = sample;
    }
  }
  ASSERT_EQ(sample_of.size(), static_cast<size_t>(kEpochs * kSamples));
  std::map<std::pair<uint64_t, uint64_t>, int> seen;  // (epoch, sample)
  for (const auto& [position, sample] : sample_of) ++seen[{position / kSamples, sample}];
  EXPECT_EQ(seen.size(), static_cast<size_t>(kEpochs * kSamples));
  for (const auto& [key, count] : seen) EXPECT_EQ(count, 1);
}

// Everything that fine-tuning adds at once: weights of another run, a new head, SAM, repeated
// augmentation, frozen parts, slower lower layers, growing images, recomputed blocks.
TEST(KillResume, AFineTuningRunWithSam) {
  const test::TempDir scratch;
  test::make_shapes_dataset(scratch / "data", (kSamples + kHoldout) / 10, kHoldout);
  std::ofstream(scratch / "first.toml") << "# all keys by --set\n";
  const std::string widths = "model.widths=[64,64,128,128]";
  const auto first =
      test::run(test::nf_train((scratch / "first.toml").string(), (scratch / "data").string(),
                               (scratch / "first").string(), {widths, "limit.steps=3"}));
  ASSERT_EQ(first.code, 0) << first.err;
  expect_kills_change_nothing(
      scratch,
      {widths, "schedule.epochs=3", "batch.size=24", "checkpoint.every_steps=2",
       "init.weights=" + (scratch / "first").string(), "init.new_head=true", "sam.rho=0.05",
       "data.repeat_augmentation=4", "optimizer.freeze=[\"stem\"]", "optimizer.layer_decay=0.8",
       "schedule.image_sizes=[24, 32]", "train.recompute=blocks"},
      6);
}

}  // namespace
}  // namespace nf

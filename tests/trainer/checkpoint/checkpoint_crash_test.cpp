// Saves that are killed at random moments, and a disk that fills up inside a save: loading always
// gives one whole state.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/rng.h"
#include "tests/support/paths.h"
#include "tests/trainer/checkpoint/snapshots.h"
#include "trainer/checkpoint/checkpoint.h"

namespace nf::train {
namespace {

namespace fs = std::filesystem;
using test::same_snapshot;
using test::snapshot_at;
using ::testing::HasSubstr;

constexpr int64_t kColumns = 5000;
constexpr int kKeep = 2;

// What a run does from `step` on, until it is killed; a replayed step is saved again.
[[noreturn]] void save_for_ever(const fs::path& dir, uint64_t step) {
  try {
    sweep_temporary(dir);
    for (;; ++step) {
      save_checkpoint(dir, snapshot_at(step, true, kColumns));
      remove_old_checkpoints(dir, kKeep, step);
    }
  } catch (const std::exception&) {
    _exit(1);
  }
}

// Starts a saving process at `step` and kills it after `delay`.
void save_and_kill(const fs::path& dir, uint64_t step, std::chrono::microseconds delay) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) save_for_ever(dir, step);
  std::this_thread::sleep_for(delay);
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "the saving process ended by itself";
}

TEST(CheckpointCrash, AKilledSaveLosesNothing) {
  const test::TempDir root;
  const fs::path dir = root / "checkpoints";
  PositionRng rng(7, Stream::kTest, 0);
  uint64_t newest = 1, commits = 0;
  save_checkpoint(dir, snapshot_at(newest, true, kColumns));
  // The time to the kill follows the machine: longer after a trial without a commit, shorter after
  // one with, so that kills fall before, inside and after commits on any disk and under any load.
  uint64_t window = 20'000;
  for (int trial = 0; trial < 30; ++trial) {
    // Every second run goes back one step, so that a checkpoint of the same name is being replaced.
    const uint64_t start = newest + static_cast<uint64_t>(trial % 2);
    save_and_kill(dir, start, std::chrono::microseconds(rng.below(window)));
    const auto loaded = load_latest(dir);
    ASSERT_TRUE(loaded.has_value()) << "a committed checkpoint is gone";
    const uint64_t step = loaded->snapshot.state.step;
    EXPECT_GE(step, newest);
    EXPECT_TRUE(same_snapshot(loaded->snapshot, snapshot_at(step, true, kColumns)));
    EXPECT_TRUE(loaded->warnings.empty()) << loaded->warnings.front();
    for (const CheckpointEntry& e : list_checkpoints(dir)) load_checkpoint(e.directory);
    window = step > newest ? window * 2 / 3 : window * 3 / 2;
    commits += step - newest;
    newest = step;
  }
  EXPECT_GE(commits, 3u) << "the kills never met a save that was committed";
}

// RLIMIT_FSIZE refuses writes beyond a size as a full disk does, deterministically and without
// privileges.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : old_handler_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    ::signal(SIGXFSZ, old_handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit old_{};
  void (*old_handler_)(int);
};

TEST(CheckpointCrash, ARefusedWriteLeavesTheOlderOnesAndNoRest) {
  const test::TempDir root;
  const fs::path dir = root / "checkpoints";
  save_checkpoint(dir, snapshot_at(1, true, kColumns));
  for (const rlim_t limit : {0, 1000, 70'000}) {
    const FileSizeLimit small(limit);
    try {
      save_checkpoint(dir, snapshot_at(2, true, kColumns));
      FAIL() << "saved under a limit of " << limit;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kOther);
      EXPECT_THAT(e.where(), HasSubstr("step_000000002"));
      EXPECT_THAT(e.hint(), HasSubstr("older checkpoints are untouched"));
    }
  }
  EXPECT_TRUE(same_snapshot(load_latest(dir)->snapshot, snapshot_at(1, true, kColumns)));
  EXPECT_EQ(std::distance(fs::directory_iterator(dir), fs::directory_iterator()), 2);
  save_checkpoint(dir, snapshot_at(2, true, kColumns));
  EXPECT_EQ(load_latest(dir)->snapshot.state.step, 2u);
}

TEST(CheckpointCrash, ExactlyTheManifestMissingMeansNotCommitted) {
  const test::TempDir root;
  const fs::path dir = root / "checkpoints";
  save_checkpoint(dir, snapshot_at(1));
  // What a crash between the last file and the manifest leaves.
  fs::copy(dir / "step_000000001", dir / ".tmp.step_000000002.1", fs::copy_options::recursive);
  fs::remove(dir / ".tmp.step_000000002.1/manifest.json");
  EXPECT_EQ(load_latest(dir)->snapshot.state.step, 1u);
  EXPECT_EQ(list_checkpoints(dir).size(), 1u);
}

}  // namespace
}  // namespace nf::train

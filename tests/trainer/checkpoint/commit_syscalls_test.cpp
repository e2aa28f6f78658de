// A commit that is killed at, or refused at, each of its system calls in turn: loading gives the
// state before or the new one, never a mix, and the next commit works. And ten thousand damaged
// checkpoints: none is used.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/rng.h"
#include "tests/support/paths.h"
#include "tests/support/syscall_trace.h"
#include "tests/trainer/checkpoint/snapshots.h"
#include "trainer/checkpoint/checkpoint.h"

namespace nf::train {
namespace {

namespace fs = std::filesystem;
using test::Interference;
using test::same_snapshot;
using test::snapshot_at;

// What a run does when a checkpoint is due.
void commit(const fs::path& dir, const Snapshot& snapshot) {
  save_checkpoint(dir, snapshot);
  remove_old_checkpoints(dir, 2, snapshot.state.step);
}

class Commit : public testing::TestWithParam<Interference> {};

TEST_P(Commit, IsWholeOrAbsentWhateverHappensAtAnySystemCall) {
  const Snapshot first = snapshot_at(1), second = snapshot_at(2), third = snapshot_at(3);
  int met = 0, before = 0, after = 0;
  for (int n = 0;; ++n) {
    const test::TempDir root(test::memory_directory());
    const fs::path dir = root / "checkpoints";
    save_checkpoint(dir, first);
    save_checkpoint(dir, second);
    const auto r = test::interfere(n, GetParam(), [&] { commit(dir, third); });
    if (n >= r.calls) break;
    if (!r.met) continue;
    ++met;
    const auto loaded = load_latest(dir);
    ASSERT_TRUE(loaded.has_value()) << "call " << n;
    EXPECT_TRUE(loaded->warnings.empty()) << "call " << n << ": " << loaded->warnings.front();
    const uint64_t step = loaded->snapshot.state.step;
    EXPECT_TRUE(same_snapshot(loaded->snapshot, step == 3 ? third : second)) << "call " << n;
    EXPECT_TRUE(step == 2 || step == 3) << step;
    ++(step == 3 ? after : before);
    if (!r.killed && r.exit_code == 0) {
      EXPECT_EQ(step, 3u) << "a commit that returned is not there; call " << n;
    }
    sweep_temporary(dir);  // what the next job does first
    commit(dir, third);
    EXPECT_EQ(load_latest(dir)->snapshot.state.step, 3u) << "call " << n;
    for (const auto& entry : fs::directory_iterator(dir))
      EXPECT_FALSE(entry.path().filename().string().starts_with(".tmp")) << entry.path();
  }
  EXPECT_GE(met, GetParam() == Interference::kShortWrite ? 4 : 20);
  if (GetParam() != Interference::kShortWrite) {
    EXPECT_GT(before, 0);
  }
  EXPECT_GT(after, 0);
}

std::string name_of(const testing::TestParamInfo<Interference>& info) {
  const std::vector<std::string> names = {"None", "Kill", "NoSpace", "IoError", "ShortWrite"};
  return names[static_cast<size_t>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(All, Commit,
                         testing::Values(Interference::kKill, Interference::kNoSpace,
                                         Interference::kIoError, Interference::kShortWrite),
                         name_of);

TEST(DamagedCheckpoint, TenThousandFlipsAndTruncationsAreAllDetected) {
  const test::TempDir root(test::memory_directory());
  save_checkpoint(root / "checkpoints", snapshot_at(5));
  const fs::path good = checkpoint_path(root / "checkpoints", 5);
  std::vector<std::pair<fs::path, std::string>> files;
  for (const auto& entry : fs::directory_iterator(good))
    files.emplace_back(entry.path(), read_file(entry.path()));
  std::sort(files.begin(), files.end());
  PositionRng rng(3, Stream::kTest, 0);
  const auto put = [](const fs::path& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  };
  for (int trial = 0; trial < 10000; ++trial) {
    const auto& [path, bytes] = files[rng.below(files.size())];
    std::string damaged = bytes;
    if (trial % 4 == 0) {
      damaged.resize(rng.below(bytes.size()));
    } else {
      damaged[rng.below(bytes.size())] ^= static_cast<char>(1 << rng.below(8));
    }
    put(path, damaged);
    try {
      const Loaded loaded = load_checkpoint(good);
      ADD_FAILURE() << "trial " << trial << ": " << path.filename() << " was used";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kWeights) << e.what();
    }
    put(path, bytes);
  }
  EXPECT_TRUE(same_snapshot(load_checkpoint(good).snapshot, snapshot_at(5)));
}

}  // namespace
}  // namespace nf::train

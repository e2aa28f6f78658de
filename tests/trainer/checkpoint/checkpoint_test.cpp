// Checkpoints: contents and bytes, fall-back over damaged ones, every flipped bit found, removal
// and sweeping.
#include "trainer/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "core/error.h"
#include "tests/support/paths.h"
#include "tests/trainer/checkpoint/snapshots.h"

namespace nf::train {
namespace {

namespace fs = std::filesystem;
using test::same_snapshot;
using test::snapshot_at;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(directory))
    out.push_back(entry.path().filename().string());
  return out;
}

std::vector<uint64_t> steps_in(const fs::path& directory) {
  std::vector<uint64_t> out;
  for (const CheckpointEntry& e : list_checkpoints(directory)) out.push_back(e.step);
  return out;
}

void flip_bit(const fs::path& file, size_t byte) {
  std::string bytes = read_file(file);
  bytes.at(byte) = static_cast<char>(bytes.at(byte) ^ 4);
  write_file_atomic(file, bytes);
}

// The message with which a checkpoint is refused, or "accepted".
std::string refusal(const fs::path& directory) {
  try {
    load_checkpoint(directory);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kWeights);
    EXPECT_FALSE(e.hint().empty());
    return e.where() + ": " + e.what();
  }
  return "accepted";
}

class Checkpoint : public ::testing::Test {
 protected:
  fs::path dir() const { return root_ / "checkpoints"; }
  void save(uint64_t step) { save_checkpoint(dir(), snapshot_at(step)); }
  fs::path at(uint64_t step) { return checkpoint_path(dir(), step); }
  test::TempDir root_;
};

TEST_F(Checkpoint, HasTheFilesOfTheContract) {
  save(123);
  EXPECT_THAT(names_in(dir()), UnorderedElementsAre("step_000000123", "latest"));
  EXPECT_EQ(read_file(dir() / "latest"), "step_000000123\n");
  EXPECT_THAT(names_in(at(123)),
              UnorderedElementsAre("model.safetensors", "optimizer.safetensors", "ema.safetensors",
                                   "state.json", "manifest.json"));
  const auto state = nlohmann::json::parse(read_file(at(123) / "state.json"));
  EXPECT_EQ(state.at("step"), 123);
  EXPECT_EQ(state.at("position"), 123 * 50);
  EXPECT_EQ(state.at("seed"), 18446744073709551615ull);
  EXPECT_EQ(state.at("fingerprint"), "f00d");
  EXPECT_EQ(state.at("config_hash"), "beef");
  const auto manifest = nlohmann::json::parse(read_file(at(123) / "manifest.json"));
  ASSERT_EQ(manifest.at("files").size(), 4u);
  for (const auto& file : manifest.at("files"))
    EXPECT_EQ(fs::file_size(at(123) / file.at("name").get<std::string>()), file.at("bytes"));
}

TEST_F(Checkpoint, LoadsWhatWasSaved) {
  for (const bool with_ema : {true, false}) {
    const Snapshot snapshot = snapshot_at(7, with_ema);
    save_checkpoint(dir(), snapshot);  // the second replaces the first
    EXPECT_EQ(fs::exists(at(7) / "ema.safetensors"), with_ema);
    const auto loaded = load_latest(dir());
    ASSERT_TRUE(loaded.has_value());
    EXPECT_EQ(loaded->directory, at(7));
    EXPECT_TRUE(same_snapshot(loaded->snapshot, snapshot));
    EXPECT_TRUE(loaded->warnings.empty());
  }
  EXPECT_THAT(names_in(dir()), UnorderedElementsAre("step_000000007", "latest"));
}

TEST_F(Checkpoint, EqualStatesGiveEqualBytes) {
  save(5);
  Snapshot shuffled = snapshot_at(5);
  std::swap(shuffled.model.front(), shuffled.model.back());
  save_checkpoint(root_ / "other", shuffled);
  for (const std::string& name : names_in(at(5)))
    EXPECT_EQ(read_file(at(5) / name), read_file(root_ / "other/step_000000005" / name)) << name;
}

TEST_F(Checkpoint, NoneIsNotAnError) {
  EXPECT_FALSE(load_latest(dir()).has_value());
  fs::create_directories(dir() / "step_000000001");  // without manifest: does not exist
  fs::create_directories(dir() / ".tmp.step_000000002.17");
  fs::create_directories(dir() / "step_3");
  std::vector<std::string> warnings;
  EXPECT_FALSE(load_latest(dir(), &warnings).has_value());
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_THAT(warnings[0], HasSubstr("step_000000001: ignored, it has no manifest.json"));
}

TEST_F(Checkpoint, FallsBackOverDamagedOnesAndSaysSo) {
  for (const uint64_t step : {10, 20, 30, 40, 50}) save(step);
  fs::remove(at(50) / "manifest.json");
  flip_bit(at(40) / "optimizer.safetensors", fs::file_size(at(40) / "optimizer.safetensors") - 1);
  fs::remove(at(30) / "ema.safetensors");
  fs::resize_file(at(20) / "model.safetensors", 100);
  const auto loaded = load_latest(dir());
  ASSERT_TRUE(loaded.has_value());
  EXPECT_TRUE(same_snapshot(loaded->snapshot, snapshot_at(10)));
  ASSERT_EQ(loaded->warnings.size(), 4u);
  EXPECT_THAT(loaded->warnings[0], HasSubstr("step_000000050: ignored, it has no manifest.json"));
  EXPECT_THAT(loaded->warnings[1], HasSubstr("optimizer.safetensors: damaged: XXH3 is"));
  EXPECT_THAT(loaded->warnings[2], HasSubstr("ema.safetensors: incomplete checkpoint"));
  EXPECT_THAT(loaded->warnings[3], HasSubstr("model.safetensors: damaged: it has 100 bytes"));
}

TEST_F(Checkpoint, AllDamagedIsAnError) {
  save(10);
  save(20);
  for (const uint64_t step : {10, 20}) flip_bit(at(step) / "state.json", 12);
  try {
    load_latest(dir());
    FAIL() << "loaded a damaged checkpoint";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kWeights);
    EXPECT_THAT(e.what(), HasSubstr("step_000000020/state.json: damaged"));
  }
}

TEST_F(Checkpoint, NamesTheReason) {
  EXPECT_THAT(refusal(dir() / "absent"), HasSubstr("not a checkpoint"));
  save(10);
  const std::string manifest = read_file(at(10) / "manifest.json");
  write_file_atomic(at(10) / "manifest.json", manifest + " ");
  EXPECT_THAT(refusal(at(10)), HasSubstr("manifest.json: the manifest is damaged"));
  write_file_atomic(at(10) / "manifest.json", "");
  EXPECT_THAT(refusal(at(10)), HasSubstr("manifest.json: the manifest is damaged"));
  write_file_atomic(at(10) / "manifest.json", manifest);
  EXPECT_EQ(refusal(at(10)), "accepted");
  fs::rename(at(10), at(11));
  EXPECT_THAT(refusal(at(11)), HasSubstr("disagree about the step"));
  fs::rename(at(11), root_ / "best");  // any other name will do
  EXPECT_EQ(refusal(root_ / "best"), "accepted");
}

// One flipped bit in every byte of manifest and state, and in every fifth byte of the tensor files
// (tensor_file_test flips all of theirs).
TEST_F(Checkpoint, FindsFlippedBytesInEveryFile) {
  save_checkpoint(dir(), snapshot_at(10, true, 2));
  size_t flips = 0;
  for (const std::string& name : names_in(at(10))) {
    const std::string good = read_file(at(10) / name);
    const size_t stride = name.ends_with(".json") ? 1 : 5;
    for (size_t byte = 0; byte < good.size(); byte += stride) {
      std::string bytes = good;
      bytes[byte] = static_cast<char>(bytes[byte] ^ (1 << (byte % 8)));
      OutputFile(at(10) / name).write(bytes.data(), bytes.size());
      EXPECT_NE(refusal(at(10)), "accepted") << name << " byte " << byte;
      ++flips;
    }
    for (size_t length = 0; length < good.size(); length += 97) {
      OutputFile(at(10) / name).write(good.data(), length);
      EXPECT_NE(refusal(at(10)), "accepted") << name << " cut to " << length;
    }
    OutputFile(at(10) / name).write(good.data(), good.size());
  }
  EXPECT_GT(flips, 900u);
  EXPECT_EQ(refusal(at(10)), "accepted");
}

TEST_F(Checkpoint, ReplacesADamagedOneOfTheSameStep) {
  save(10);
  save(20);
  fs::resize_file(at(20) / "model.safetensors", 9);
  save(20);
  EXPECT_TRUE(same_snapshot(load_latest(dir())->snapshot, snapshot_at(20)));
  EXPECT_THAT(names_in(dir()), UnorderedElementsAre("step_000000010", "step_000000020", "latest"));
}

TEST_F(Checkpoint, StepsSortAsNumbers) {
  save(999'999'999);
  save(1'000'000'000);
  EXPECT_EQ(load_latest(dir())->snapshot.state.step, 1'000'000'000u);
  EXPECT_THAT(steps_in(dir()), ElementsAre(999'999'999, 1'000'000'000));
}

TEST_F(Checkpoint, KeepsTheNewestAndThePinned) {
  for (const uint64_t step : {10, 20, 30, 40, 50}) save(step);
  remove_old_checkpoints(dir(), 0, 50);
  EXPECT_EQ(steps_in(dir()).size(), 5u);
  remove_old_checkpoints(dir(), 2, 50, {10});
  EXPECT_THAT(steps_in(dir()), ElementsAre(10, 40, 50));
  remove_old_checkpoints(dir(), 3, 50);
  EXPECT_THAT(steps_in(dir()), ElementsAre(10, 40, 50));
  // After a fall-back to step 40, step 50 is damaged: it must not push 40 out.
  remove_old_checkpoints(dir(), 1, 40);
  EXPECT_THAT(steps_in(dir()), ElementsAre(40, 50));
  EXPECT_THAT(names_in(dir()), UnorderedElementsAre("step_000000040", "step_000000050", "latest"));
}

TEST_F(Checkpoint, SweepsWhatKilledSavesLeft) {
  save(10);
  fs::create_directories(dir() / ".tmp.step_000000020.4711");
  write_file_atomic(dir() / ".tmp.step_000000020.4711/model.safetensors", "torn");
  write_file_atomic(dir() / "latest.tmp.4711", "");
  write_file_atomic(dir() / "notes.txt", "of the user");
  sweep_temporary(dir());
  EXPECT_THAT(names_in(dir()), UnorderedElementsAre("step_000000010", "latest", "notes.txt"));
  sweep_temporary(dir() / "absent");
}

TEST_F(Checkpoint, RefusesADirectoryThatCannotBeMade) {
  write_file_atomic(root_ / "file", "x");
  try {
    save_checkpoint(root_ / "file" / "checkpoints", snapshot_at(1));
    FAIL() << "saved below a file";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kOther);
    EXPECT_THAT(e.where(), HasSubstr("checkpoints"));
    EXPECT_FALSE(e.hint().empty());
  }
}

}  // namespace
}  // namespace nf::train

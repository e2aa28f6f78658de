// Bad input, as a user meets it: the real nf-train, its exit code and its words.
#include <gtest/gtest.h>

#include "core/jsonl.h"
#include "tests/support/tiny_run.h"

namespace nf {
namespace {
namespace fs = std::filesystem;

class BadInput : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new test::TempDir;
    test::make_shapes_dataset(data(), 16, 10);
    std::ofstream(config()) << "# all keys by --set\n";
  }
  static void TearDownTestSuite() { delete scratch_; }
  static fs::path scratch(const std::string& name) { return *scratch_ / name; }
  static std::string data() { return scratch("data").string(); }
  static std::string config() { return scratch("empty.toml").string(); }

  static test::Outcome train(const std::string& run, const std::vector<std::string>& more = {},
                             const std::string& dataset = data()) {
    return test::run(test::nf_train(config(), dataset, scratch(run).string(), more));
  }
  static void expect(const test::Outcome& o, int code, const std::vector<std::string>& words) {
    EXPECT_EQ(o.code, code) << o.err;
    EXPECT_NE(o.err.find("error: "), std::string::npos) << o.err;
    EXPECT_NE(o.err.find("hint: "), std::string::npos) << o.err;
    for (const auto& w : words)
      EXPECT_NE(o.err.find(w), std::string::npos) << "no \"" << w << "\" in: " << o.err;
  }
  static void flip(const fs::path& file, size_t offset, unsigned char mask = 1) {
    std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
    f.seekg(static_cast<std::streamoff>(offset));
    const char c = static_cast<char>(f.get() ^ mask);
    f.seekp(static_cast<std::streamoff>(offset));
    f.put(c);
  }
  static std::string copy_of_data(const std::string& name) {
    fs::copy(data(), scratch(name), fs::copy_options::recursive);
    return scratch(name).string();
  }

 private:
  static test::TempDir* scratch_;
};
test::TempDir* BadInput::scratch_ = nullptr;

TEST_F(BadInput, MissingDataSet) {
  expect(train("a", {}, scratch("nowhere").string()), 3, {"nowhere"});
}

TEST_F(BadInput, MissingSplit) { expect(train("b", {"data.split=trian"}), 3, {"trian", "train"}); }

TEST_F(BadInput, AllConfigErrorsAtOnceWithFileLineAndKey) {
  std::ofstream(scratch("bad.toml")) << "[batch]\nsize = \"many\"\n[optimizer]\nlerning_rate = "
                                        "0.1\n[data]\ncrop = \"randm_resized\"\n";
  const auto o = test::run({test::program("nf-train").string(), "--config",
                            scratch("bad.toml").string(), "--output", scratch("c").string()});
  expect(o, 2,
         {"bad.toml:2", "batch.size must be an integer", "bad.toml:4", "optimizer.lerning_rate",
          "did you mean optimizer.learning_rate", "bad.toml:6", "random_resized"});
}

TEST_F(BadInput, BadSyntaxNamesTheLine) {
  std::ofstream(scratch("syntax.toml")) << "[run]\nseed = = 3\n";
  expect(test::run({test::program("nf-train").string(), "--config", scratch("syntax.toml").string(),
                    "--output", scratch("d").string()}),
         2, {"syntax.toml:2"});
}

TEST_F(BadInput, WrongUsage) {
  expect(test::run({test::program("nf-train").string(), "--confg", "x"}), 2, {"nf-train"});
  expect(test::run({test::program("nf-train").string()}), 2, {"--config"});
}

TEST_F(BadInput, BatchNotDivisibleByMicroBatches) {
  expect(train("e", {"batch.micro_batches=7"}), 2, {"batch.size 48", "batch.micro_batches 7"});
}

TEST_F(BadInput, MoreRanksThanMicroBatches) {
  auto command = test::nf_train(config(), data(), scratch("f").string(), {"batch.micro_batches=2"});
  expect(test::run(test::mpirun(3, command)), 2, {"3 ranks", "2 micro-batches"});
}

TEST_F(BadInput, OneFlippedBitCostsOneSampleAndIsReported) {
  const std::string damaged = copy_of_data("flipped");
  const fs::path shard = fs::path(damaged) / "train-00000.h5";
  flip(shard, fs::file_size(shard) / 2);
  const auto o = train("g", {"data.max_bad_fraction=0.5", "limit.steps=4"}, damaged);
  EXPECT_EQ(o.code, 0) << o.err;
  const auto lines = read_jsonl(scratch("g") / "quarantine.jsonl");
  ASSERT_EQ(lines.size(), 1u) << o.err;
  EXPECT_NE(lines[0]["reason"].get<std::string>().find("CRC"), std::string::npos) << lines[0];
  expect(train("h", {"data.max_bad_fraction=0"}, damaged), 3,
         {"max_bad_fraction", "nf-audit data"});
}

TEST_F(BadInput, TruncatedShard) {
  const std::string damaged = copy_of_data("truncated");
  const fs::path shard = fs::path(damaged) / "train-00000.h5";
  fs::resize_file(shard, fs::file_size(shard) - 100);
  expect(train("i", {}, damaged), 3, {"train-00000.h5"});
}

TEST_F(BadInput, DamagedCheckpointFallsBackToTheOneBefore) {
  ASSERT_EQ(train("calm").code, 0);
  ASSERT_EQ(train("j", {"limit.steps=3", "checkpoint.every_steps=1"}).code, 0);
  const fs::path newest = test::latest(scratch("j"));
  flip(newest / "optimizer.safetensors", fs::file_size(newest / "optimizer.safetensors") - 5);
  const auto o = train("j");
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.err.find("warning:"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("optimizer.safetensors"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("step_000000002"), std::string::npos) << o.err;
  for (const auto& file : test::state_files())
    EXPECT_EQ(test::slurp(test::latest(scratch("j")) / file),
              test::slurp(test::latest(scratch("calm")) / file))
        << file;
}

TEST_F(BadInput, MissingCheckpointFileFallsBackToTheOneBefore) {
  ASSERT_EQ(train("k", {"limit.steps=2", "checkpoint.every_steps=1"}).code, 0);
  fs::remove(test::latest(scratch("k")) / "model.safetensors");
  const auto o = train("k", {"limit.steps=3"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_NE(o.err.find("model.safetensors"), std::string::npos) << o.err;
}

TEST_F(BadInput, AllCheckpointsDamaged) {
  ASSERT_EQ(train("l", {"limit.steps=1"}).code, 0);
  flip(test::latest(scratch("l")) / "model.safetensors", 3000);
  expect(train("l", {"limit.steps=2"}), 4, {"model.safetensors"});
}

TEST_F(BadInput, WeightsOfAnotherVariant) {
  ASSERT_EQ(train("m", {"limit.steps=1"}).code, 0);
  expect(train("n", {"init.weights=" + test::latest(scratch("m")).string(),
                     "model.widths=[32,32,64,96]"}),
         4, {"stages.3"});
}

TEST_F(BadInput, OutputDirectoryOfAnotherRun) {
  ASSERT_EQ(train("o", {"limit.steps=1"}).code, 0);
  expect(train("o", {"optimizer.learning_rate=0.2", "run.seed=12"}), 2,
         {"optimizer.learning_rate: 0.1 -> 0.2", "run.seed: 11 -> 12"});
  expect(test::run([&] {
           auto c = test::nf_train(config(), data(), scratch("o").string());
           c.insert(c.end(), {"--resume", "never"});
           return c;
         }()),
         2, {"--resume"});
}

TEST_F(BadInput, AnotherDataSetOnResume) {
  ASSERT_EQ(train("p", {"limit.steps=1"}).code, 0);
  test::make_shapes_dataset(scratch("other"), 15, 10);
  expect(train("p", {}, scratch("other").string()), 3, {"fingerprint"});
}

// A file size limit stands for the full disk: the write fails in the same place with the same
// handling.
TEST_F(BadInput, DiskFullWhileSavingKeepsTheOldCheckpoint) {
  ASSERT_EQ(train("q", {"limit.steps=1"}).code, 0);
  const std::string before = test::slurp(test::latest(scratch("q")) / "manifest.json");
  std::string command = "trap '' XFSZ; ulimit -f 40; exec";
  for (const auto& a : test::nf_train(config(), data(), scratch("q").string()))
    command += " '" + a + "'";
  const auto o = test::run({"bash", "-c", command});
  EXPECT_EQ(o.code, 1) << o.err;
  EXPECT_NE(o.err.find("checkpoints"), std::string::npos) << o.err;
  EXPECT_EQ(test::slurp(test::latest(scratch("q")) / "manifest.json"), before);
  size_t entries = 0;
  for (const auto& e : fs::directory_iterator(scratch("q") / "checkpoints"))
    entries += e.is_directory() ? 1 : 0;
  EXPECT_EQ(entries, 1u) << "a half-written checkpoint was left behind";
  EXPECT_EQ(train("q").code, 0);
}

TEST_F(BadInput, TwoJobsOnOneOutputDirectory) {
  const test::TempDir logs;
  test::Process first(
      test::nf_train(config(), data(), scratch("r").string(), {"schedule.epochs=500"}),
      logs / "out", logs / "err");
  for (int i = 0; i < 3000 && !fs::exists(scratch("r") / "metrics.jsonl"); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ASSERT_TRUE(first.running()) << test::slurp(logs / "err");
  expect(train("r", {"schedule.epochs=500"}), 2, {"another job", std::to_string(first.pid())});
  EXPECT_TRUE(first.running());
}

TEST_F(BadInput, NonFiniteLossStopsWithoutTouchingTheWeights) {
  const auto o = train("s", {"optimizer.learning_rate=1e30", "optimizer.agc_clip=0",
                             "schedule.warmup_epochs=0", "checkpoint.every_steps=1"});
  expect(o, 6, {"not finite", "positions"});
}

}  // namespace
}  // namespace nf

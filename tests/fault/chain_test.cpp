// The whole chain with real programs: mpirun on 1, 2 and 4 ranks gives the same bytes; a signal
// saves and exits with 75; a finished run says so; evaluation and export agree with training.
#include <gtest/gtest.h>

#include <sstream>

#include "core/jsonl.h"
#include "tests/support/tiny_run.h"

namespace nf {
namespace {
namespace fs = std::filesystem;

class Chain : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new test::TempDir;
    test::make_shapes_dataset(data(), 20, 20);
    std::ofstream(scratch("empty.toml")) << "# all keys by --set\n";
  }
  static void TearDownTestSuite() { delete scratch_; }
  static fs::path scratch(const std::string& name) { return *scratch_ / name; }
  static std::string data() { return scratch("data").string(); }
  static std::vector<std::string> command(const std::string& run,
                                          std::vector<std::string> more = {}) {
    more.insert(more.end(), {"evaluate.split=holdout"});
    return test::nf_train(scratch("empty.toml").string(), data(), scratch(run).string(), more);
  }

 private:
  static test::TempDir* scratch_;
};
test::TempDir* Chain::scratch_ = nullptr;

TEST_F(Chain, MpiRanksGiveTheSameBytes) {
  for (const int ranks : {1, 2, 4}) {
    const auto o = test::run(test::mpirun(ranks, command("w" + std::to_string(ranks))));
    ASSERT_EQ(o.code, 0) << o.err;
  }
  const auto alone = test::run(command("alone"));  // without mpirun
  ASSERT_EQ(alone.code, 0) << alone.err;
  for (const char* other : {"w2", "w4", "alone"})
    for (const auto& file : test::state_files())
      EXPECT_EQ(test::slurp(test::latest(scratch("w1")) / file),
                test::slurp(test::latest(scratch(other)) / file))
          << other << " " << file;
}

TEST_F(Chain, SignalSavesAndExitsWith75ThenContinues) {
  ASSERT_EQ(test::run(command("calm", {"schedule.epochs=4"})).code, 0);
  const test::TempDir logs;
  auto argv = test::mpirun(2, command("stopped", {"schedule.epochs=4"}));
  {
    test::Process job(argv, logs / "out", logs / "err");
    while (job.running() && read_jsonl(scratch("stopped") / "ledger.jsonl").size() < 2)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ASSERT_FALSE(job.children().empty());
    job.signal(SIGUSR1);  // mpirun forwards it to every rank
    EXPECT_EQ(job.wait(), 75) << test::slurp(logs / "err");
  }
  EXPECT_FALSE(fs::exists(scratch("stopped") / "result.json"));
  ASSERT_EQ(test::run(command("stopped", {"schedule.epochs=4"})).code, 0);
  for (const auto& file : test::state_files())
    EXPECT_EQ(test::slurp(test::latest(scratch("calm")) / file),
              test::slurp(test::latest(scratch("stopped")) / file))
        << file;
  // No step twice, none missing.
  uint64_t expected = 1;
  for (const auto& line : read_jsonl(scratch("stopped") / "metrics.jsonl"))
    if (line["kind"] == "train") {
      EXPECT_EQ(line["step"].get<uint64_t>(), expected++);
    }
}

TEST_F(Chain, FinishedRunSaysSoAndChangesNothing) {
  ASSERT_EQ(test::run(command("done")).code, 0);
  const std::string before = test::slurp(scratch("done") / "result.json"),
                    metrics = test::slurp(scratch("done") / "metrics.jsonl");
  const auto again = test::run(command("done"));
  EXPECT_EQ(again.code, 0);
  EXPECT_NE(again.err.find("complete"), std::string::npos) << again.err;
  EXPECT_EQ(test::slurp(scratch("done") / "result.json"), before);
  EXPECT_EQ(test::slurp(scratch("done") / "metrics.jsonl"), metrics);
}

// The CSV's columns, and that the accuracies are those of its rows.
void expect_predictions(const fs::path& file, size_t images, double top1, double top5) {
  std::ifstream csv(file);
  std::string line;
  std::getline(csv, line);
  EXPECT_EQ(line,
            "index,label,name,top1,top1_name,top1_probability,top2,top2_name,top2_probability,"
            "top3,top3_name,top3_probability,top4,top4_name,top4_probability,"
            "top5,top5_name,top5_probability");
  size_t rows = 0, first = 0, among = 0;
  while (std::getline(csv, line)) {
    std::vector<std::string> cells;
    std::istringstream in(line);
    for (std::string cell; std::getline(in, cell, ',');) cells.push_back(cell);
    ASSERT_EQ(cells.size(), 18u) << line;
    EXPECT_EQ(cells[0], std::to_string(rows));
    double last = 1, sum = 0;
    bool seen = false;
    for (size_t k = 0; k < 5; ++k) {
      const double p = std::stod(cells[5 + 3 * k]);
      EXPECT_LE(p, last) << line;
      last = p;
      sum += p;
      if (cells[3 + 3 * k] != cells[1]) continue;
      EXPECT_EQ(cells[4 + 3 * k], cells[2]) << "the label's name";
      seen = true;
      first += k == 0 ? 1 : 0;
    }
    EXPECT_LE(sum, 1 + 1e-4);
    among += seen ? 1 : 0;
    ++rows;
  }
  EXPECT_EQ(rows, images);
  EXPECT_DOUBLE_EQ(static_cast<double>(first) / static_cast<double>(images), top1);
  EXPECT_DOUBLE_EQ(static_cast<double>(among) / static_cast<double>(images), top5);
}

TEST_F(Chain, EvaluateAndExportAgreeWithTraining) {
  ASSERT_EQ(test::run(command("source")).code, 0);
  const Json result = Json::parse(test::slurp(scratch("source") / "result.json"));
  const auto eval = [&](const std::string& weights, std::vector<std::string> more = {}) {
    std::vector<std::string> argv = {test::program("nf-eval").string(),
                                     "--weights",
                                     weights,
                                     "--data",
                                     data(),
                                     "--split",
                                     "holdout"};
    argv.insert(argv.end(), more.begin(), more.end());
    const auto o = test::run(argv);
    EXPECT_EQ(o.code, 0) << o.err;
    return Json::parse(o.out);
  };
  const std::string checkpoint = test::latest(scratch("source")).string(),
                    file = scratch("out.safetensors").string();
  EXPECT_EQ(eval(checkpoint)["loss"], result["heldout_loss"]);
  EXPECT_EQ(eval(checkpoint, {"--ema"})["loss"], result["heldout_loss_ema"]);
  EXPECT_EQ(eval((scratch("source") / "checkpoints/latest").string())["loss"],
            result["heldout_loss"]);
  const auto exported = test::run({test::program("nf-export").string(), "--checkpoint", checkpoint,
                                   "--output", file, "--weights", "raw"});
  ASSERT_EQ(exported.code, 0) << exported.err;
  EXPECT_EQ(eval(file, {"--predictions", scratch("p.csv").string(), "--save-tensors",
                        scratch("t.safetensors").string(), "--save-count", "7"})["loss"],
            result["heldout_loss"]);
  expect_predictions(scratch("p.csv"), 20, result["heldout_top1"], result["heldout_top5"]);
  // The exported file starts another run: a step count of 1 and the weights are there.
  const auto fine =
      test::run(command("fine", {"init.weights=" + file, "init.new_head=true", "limit.steps=1"}));
  EXPECT_EQ(fine.code, 0) << fine.err;
}

TEST_F(Chain, DryRunPrintsAndWritesNothing) {
  auto argv = command("dry");
  argv.push_back("--dry-run");
  const auto o = test::run(argv);
  EXPECT_EQ(o.code, 0) << o.err;
  for (const char* word : {"[model]", "parameters", "steps", "FLOPs", "memory"})
    EXPECT_NE(o.out.find(word), std::string::npos) << o.out;
  EXPECT_FALSE(fs::exists(scratch("dry")));
}

// Every config of the project parses and passes the checks that need no data.
TEST_F(Chain, EveryConfigParses) {
  size_t count = 0;
  for (const auto& entry : fs::recursive_directory_iterator(test::source_dir() / "configs")) {
    if (entry.path().extension() != ".toml" ||
        entry.path().string().find("sweeps") != std::string::npos)
      continue;
    EXPECT_NO_THROW(train::load_run_config(entry.path(), {"data.path=x"})) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 13u);
}

}  // namespace
}  // namespace nf

// nf-audit as its users call it: output, exit codes and messages, on a whole and on a damaged data
// set.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "core/atomic_file.h"
#include "core/jsonl.h"
#include "data_pipeline/ledger.h"
#include "data_pipeline/sampler.h"
#include "tests/data_pipeline/drawn_dataset.h"

namespace nf::data {
namespace {

struct Outcome {
  int code;
  std::string out, err;
};

Outcome audit(const test::TempDir& folder, const std::string& arguments) {
  const auto out = folder / "stdout", err = folder / "stderr";
  std::string command = test::program("nf-audit").string();
  command += " " + arguments + " >" + out.string() + " 2>" + err.string();
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(out), read_file(err)};
}

TEST(AuditProgram, DataSet) {
  const test::TempDir folder;
  const auto set = test::draw_dataset(folder, 30, 12);
  Outcome r = audit(folder, "data " + set.string() + " --decode");
  EXPECT_EQ(r.code, 0) << r.out << r.err;
  Json report = Json::parse(r.out);
  EXPECT_EQ(report["verdict"], "pass");
  EXPECT_EQ(report["samples"], 30);
  EXPECT_EQ(report["shards"], 3);

  const auto shard = set / "train-00001.h5";
  test::flip_bit(shard, std::filesystem::file_size(shard) / 2);
  r = audit(folder, "data " + set.string());
  EXPECT_EQ(r.code, 3);
  report = Json::parse(r.out);
  EXPECT_EQ(report["verdict"], "fail");
  EXPECT_EQ(report["problems"].size(), 1u) << r.out;
  ASSERT_EQ(report["damaged"].size(), 1u) << r.out;
  EXPECT_GE(report["damaged"][0]["sample"], 12);
  EXPECT_LT(report["damaged"][0]["sample"], 24);
  EXPECT_EQ(r.err.rfind("error: ", 0), 0u) << r.err;
  EXPECT_NE(r.err.find("hint: "), std::string::npos);

  std::filesystem::resize_file(shard, 100);
  EXPECT_EQ(audit(folder, "data " + set.string()).code, 3);
  EXPECT_EQ(audit(folder, "data " + (folder / "nothing").string()).code, 3);
}

TEST(AuditProgram, Run) {
  const test::TempDir folder;
  RunOrder order;
  order.sampler = {.samples = 10, .seed = 1};
  order.batch_size = 4;
  order.micro_batches = 2;
  order.end_position = 10;
  write_run_order(folder.path(), order);
  const Sampler sampler(order.sampler);
  {
    JsonlWriter ledger(folder / "ledger.jsonl");
    for (uint64_t step = 1, begin = 0; begin < 10; ++step, begin += 4) {
      std::vector<uint64_t> samples(std::min<uint64_t>(4, 10 - begin));
      sampler.fill(begin, samples);
      ledger.append(
          to_json(LedgerLine{step, begin, begin + samples.size(), batch_digest(begin, samples)}));
    }
  }
  Outcome r = audit(folder, "run " + folder.path().string());
  EXPECT_EQ(r.code, 0) << r.out << r.err;
  EXPECT_EQ(Json::parse(r.out)["digests_checked"], 3);
  order.sampler.seed = 2;
  write_run_order(folder.path(), order);
  r = audit(folder, "run " + folder.path().string());
  EXPECT_EQ(r.code, 3);
  EXPECT_EQ(Json::parse(r.out)["digests_wrong"], 3);
  EXPECT_EQ(audit(folder, "run " + folder.path().string() + " --digests none").code, 0);
  EXPECT_EQ(audit(folder, "run " + (folder / "nothing").string()).code, 3);
}

TEST(AuditProgram, Where) {
  const test::TempDir folder;
  const auto set = test::draw_dataset(folder, 30, 12);
  Outcome r =
      audit(folder, "where " + set.string() + " --seed 7 --sample 4 --epoch 2 --batch-size 8");
  ASSERT_EQ(r.code, 0) << r.err;
  const uint64_t position = Sampler({.samples = 30, .seed = 7}).position_of(4, 2);
  Json answer = Json::parse(r.out);
  EXPECT_EQ(answer["position"], position);
  EXPECT_EQ(answer["step"], position / 8 + 1);
  r = audit(folder, "where " + set.string() +
                        " --seed 7 --sample 4 --epoch 2 --shuffle windowed --window-shards 1");
  EXPECT_EQ(Json::parse(r.out)["position"], Sampler({.samples = 30,
                                                     .seed = 7,
                                                     .shuffle = Shuffle::kWindowed,
                                                     .shard_samples = 12,
                                                     .window_shards = 1})
                                                .position_of(4, 2));
  EXPECT_EQ(audit(folder, "where " + set.string() + " --seed 7 --sample 30 --epoch 0").code, 2);
  EXPECT_EQ(
      audit(folder, "where " + set.string() + " --split nope --seed 7 --sample 3 --epoch 0").code,
      3);
}

TEST(AuditProgram, HelpVersionAndBadUsage) {
  const test::TempDir folder;
  EXPECT_EQ(audit(folder, "--help").code, 0);
  EXPECT_NE(audit(folder, "--help").out.find("nf-audit run RUN_DIR"), std::string::npos);
  EXPECT_EQ(audit(folder, "--version").code, 0);
  EXPECT_EQ(audit(folder, "").code, 2);
  EXPECT_EQ(audit(folder, "run --nonsense").code, 2);
}

}  // namespace
}  // namespace nf::data

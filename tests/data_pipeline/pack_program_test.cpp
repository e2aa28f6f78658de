// nf-pack as users run it: exit codes, kill -9 and run again, and a folder of odd and damaged files
// within 1 GiB of memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <set>

#include "core/atomic_file.h"
#include "data_pipeline/dataset_index.h"
#include "data_pipeline/decode.h"
#include "data_pipeline/shard_dataset.h"
#include "tests/data_pipeline/odd_files.h"
#include "tests/data_pipeline/store_fixtures.h"
#include "tests/support/paths.h"

namespace nf::data {
namespace {

namespace fs = std::filesystem;
using test::Finished;
using testing::HasSubstr;

Finished nf_pack(const std::vector<std::string>& arguments, int64_t kill_after_us = -1) {
  return test::run_program(test::program("nf-pack"), arguments, kill_after_us);
}

TEST(PackProgram, HelpVersionAndExitCodes) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 1, 2, 8);
  const std::string in = (dir / "in").string(), out = (dir / "out").string();
  EXPECT_THAT(nf_pack({"--help"}).out, HasSubstr("Example"));
  EXPECT_THAT(nf_pack({"--version"}).out, HasSubstr("nf-pack "));
  EXPECT_EQ(nf_pack({"--help"}).exit_code, 0);
  EXPECT_EQ(nf_pack({"--input", in}).exit_code, 2);
  EXPECT_EQ(nf_pack({"--input", in, "--output", out, "--quality", "50"}).exit_code, 2);
  EXPECT_EQ(nf_pack({"--input", in, "--output", out, "--nonsense"}).exit_code, 2);
  const Finished missing = nf_pack({"--input", in + "x", "--output", out});
  EXPECT_EQ(missing.exit_code, 3);
  EXPECT_THAT(missing.err, testing::StartsWith("error: "));
  EXPECT_THAT(missing.err, HasSubstr("hint: "));
  EXPECT_EQ(nf_pack({"--input", in, "--output", "/dev/null/x"}).exit_code, 1);
  const Finished first = nf_pack({"--input", in, "--output", out});
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_THAT(first.out, HasSubstr("train: 2 samples"));
  EXPECT_THAT(nf_pack({"--input", in, "--output", out}).out, HasSubstr("complete already"));
}

TEST(PackProgram, KilledAndRunAgainGivesTheSameBytes) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 4, 150, 8);
  const auto arguments = [&](const std::string& out, int workers) {
    return std::vector<std::string>{"--input",         (dir / "in").string(),
                                    "--output",        (dir / out).string(),
                                    "--holdout",       "40",
                                    "--shard-samples", "25",
                                    "--workers",       std::to_string(workers)};
  };
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(nf_pack(arguments("whole", 2)).exit_code, 0);
  const auto whole_us = std::chrono::duration_cast<std::chrono::microseconds>(
                            std::chrono::steady_clock::now() - begin)
                            .count();
  const auto expected = test::hash_folder(dir / "whole");
  int killed = 0, rounds = 0;
  uint64_t state = 20;
  // Kills at random moments of the time that a whole pack takes; a run that gets through in time
  // starts a new data set.
  for (int data_set = 0; killed < 20 && data_set < 100; ++data_set) {
    const std::string out = "out" + std::to_string(data_set);
    for (int k = 0; k < 3; ++k, ++rounds) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      const auto after = static_cast<int64_t>((state >> 33) % static_cast<uint64_t>(whole_us));
      if (nf_pack(arguments(out, 1 + rounds % 4), after).exit_code == -1) ++killed;
    }
    ASSERT_EQ(nf_pack(arguments(out, 2)).exit_code, 0);
    EXPECT_EQ(test::hash_folder(dir / out), expected) << "after " << killed << " kills";
  }
  EXPECT_GE(killed, 20);
}

// A limit on the file size stands for a full disk: the same failure of the same calls, in HDF5 and
// outside it.
TEST(PackProgram, WriteFailuresAreReportedAndMended) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 2, 150, 8);
  const std::string command = test::program("nf-pack").string() + " --input " +
                              (dir / "in").string() + " --output " + (dir / "out").string();
  const auto limited = [&](int kib) {
    return test::run_program("/bin/bash", {"-c", "trap '' XFSZ; ulimit -f " + std::to_string(kib) +
                                                     "; exec " + command});
  };
  for (const int kib : {2, 100}) {  // too little for the structure, then for the images
    const Finished failed = limited(kib);
    EXPECT_EQ(failed.exit_code, 1) << failed.err;
    EXPECT_THAT(failed.err, HasSubstr("cannot write"));
    EXPECT_FALSE(has_dataset_index(dir / "out"));
  }
  ASSERT_EQ(limited(1 << 20).exit_code, 0);
  ASSERT_EQ(
      nf_pack({"--input", (dir / "in").string(), "--output", (dir / "whole").string()}).exit_code,
      0);
  EXPECT_EQ(test::hash_folder(dir / "out"), test::hash_folder(dir / "whole"));
}

TEST(PackProgram, HeadersCheckedGiveTheSameShards) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 2, 20, 8);
  const auto pack = [&](const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"--input", (dir / "in").string(), "--output",
                                          (dir / out).string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return nf_pack(arguments).exit_code;
  };
  ASSERT_EQ(pack("full", {"--no-transcode"}), 0);
  ASSERT_EQ(pack("said", {"--no-transcode", "--check", "full"}), 0);
  ASSERT_EQ(pack("headers", {"--no-transcode", "--check", "headers"}), 0);
  EXPECT_EQ(test::hash_folder(dir / "said"), test::hash_folder(dir / "full"));
  EXPECT_EQ(test::hash_folder(dir / "headers").at("train-00000.h5"),
            test::hash_folder(dir / "full").at("train-00000.h5"));
  EXPECT_TRUE(verify_shards(dir / "headers").empty());
  EXPECT_EQ(pack("full", {"--no-transcode", "--check", "headers"}), 3) << "another pack";
  EXPECT_EQ(pack("x", {"--check", "headers"}), 2) << "storing anew reads everything";
  EXPECT_EQ(pack("x", {"--no-transcode", "--check", "none"}), 2);
  EXPECT_EQ(pack("x", {"--no-transcode", "--check"}), 2);
  EXPECT_FALSE(fs::exists(dir / "x"));
  const std::string help = nf_pack({"--help"}).out;
  EXPECT_THAT(help, HasSubstr("--check"));
  EXPECT_THAT(help, HasSubstr("found in training, by the decoder"));
}

// What every file is expected to be, by name; the folder goes through nf-pack and what it accepts
// decodes from the shard, or, when only headers were checked, is found damaged by the decoder.
void pack_odd_files(const fs::path& input, std::vector<test::OddFile> expected, bool headers_only) {
  const test::TempDir dir;
  std::vector<std::string> arguments = {
      "--input", input.string(), "--output", (dir / "out").string(), "--workers", "2"};
  std::set<std::string> damaged;
  if (headers_only) {
    arguments.insert(arguments.end(), {"--no-transcode", "--check", "headers"});
    for (auto& file : expected) {
      const auto other = test::headers_only_verdicts().find(file.name);
      if (other == test::headers_only_verdicts().end()) continue;
      if (other->second.empty()) damaged.insert(file.name);
      file.reason = other->second;
    }
  }
  const Finished finished = nf_pack(arguments);
  ASSERT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_LT(finished.max_rss_bytes, int64_t{1} << 30);
  std::map<std::string, std::string> rejected;
  const std::string text =
      fs::exists(dir / "out/rejected.tsv") ? read_file(dir / "out/rejected.tsv") : "";
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at), tab = text.find('\t', at);
    rejected[text.substr(at, tab - at)] = text.substr(tab + 1, end - tab - 1);
    at = end + 1;
  }
  std::set<std::string> known;
  for (const auto& file : expected) {
    known.insert(file.name);
    ASSERT_TRUE(fs::exists(input / file.name)) << file.name;
    if (file.reason.empty()) {
      EXPECT_EQ(rejected.count(file.name), 0U) << file.name << ": " << rejected[file.name];
    } else {
      EXPECT_THAT(rejected[file.name], HasSubstr(file.reason)) << file.name;
    }
  }
  for (const auto& entry : fs::directory_iterator(input))
    EXPECT_EQ(known.count(entry.path().filename().string()), 1U) << entry.path();
  const ShardDataset dataset(dir / "out", "train");
  EXPECT_EQ(dataset.size() + rejected.size(), expected.size());
  std::vector<std::string> names;  // of the samples, in order
  for (const auto& name : known) {
    if (rejected.count(name) == 0) names.push_back(name);
  }
  SampleData data;
  Image image;
  for (uint64_t i = 0; i < dataset.size(); ++i) {
    ASSERT_TRUE(dataset.read(i, data).ok());
    if (damaged.contains(names.at(i))) {
      EXPECT_NE(decode_image(data.bytes, image).reason, "") << names.at(i);
      continue;
    }
    if (int64_t{data.width} * data.height > 50'000'000) {
      int width = 0, height = 0;
      EXPECT_EQ(check_image(data.bytes, width, height).reason, "");
      continue;
    }
    EXPECT_EQ(decode_image(data.bytes, image).reason, "");
    EXPECT_EQ(image.width, data.width);
    EXPECT_EQ(image.height, data.height);
    Image original;  // stored anew or not, the pixels are the file's
    EXPECT_EQ(decode_image(test::read_bytes(input / names.at(i)), original).reason, "");
    EXPECT_EQ(image.rgb, original.rgb) << names.at(i);
  }
}

TEST(PackProgram, OddFilesDrawnHere) {
  const test::TempDir dir;
  fs::create_directories(dir / "odd");
  const auto expected = test::draw_odd_files(dir / "odd");
  ASSERT_GT(expected.size(), 20U);
  pack_odd_files(dir / "odd", expected, false);
  pack_odd_files(dir / "odd", expected, true);
}

// The collected odd set is not part of the repository; where it is absent the drawn files above
// stand for it.
TEST(PackProgram, OddFilesCollected) {
  const fs::path collected = test::shared_data() / "odd";
  if (!test::shared_data().empty() && fs::exists(collected)) {
    pack_odd_files(collected, test::collected_odd_files(), false);
    pack_odd_files(collected, test::collected_odd_files(), true);
  } else {
    EXPECT_EQ(test::collected_odd_files().size(), 145U);
  }
}

}  // namespace
}  // namespace nf::data

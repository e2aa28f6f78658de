// nf-pack's work through its library: the same bytes whatever the workers, the container and the
// history; what is held out, refused, shrunk and labelled; which mix-ups are errors.
#include "data_pipeline/pack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "data_pipeline/jpeg_layout.h"
#include "data_pipeline/jpeg_transcode.h"
#include "data_pipeline/pack_lock.h"
#include "data_pipeline/pack_split.h"
#include "data_pipeline/shard_dataset.h"
#include "tests/data_pipeline/jpeg_cases.h"
#include "tests/data_pipeline/store_fixtures.h"
#include "tests/support/paths.h"

namespace nf::data {
namespace {

namespace fs = std::filesystem;
using test::ByteVector;
using testing::ElementsAre;
using testing::HasSubstr;

PackOptions options(const fs::path& input, const fs::path& output,
                    const std::string& split = "train") {
  PackOptions o;
  o.input = input;
  o.output = output;
  o.split = split;
  o.workers = 2;
  o.shard_samples = 7;
  return o;
}

std::string error_of(const PackOptions& o, ExitCode code) {
  try {
    pack(o);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

std::vector<SampleData> all_samples(const fs::path& folder, const std::string& split) {
  const ShardDataset dataset(folder, split);
  std::vector<SampleData> samples(dataset.size());
  for (uint64_t i = 0; i < samples.size(); ++i) EXPECT_EQ(dataset.read(i, samples[i]).reason, "");
  return samples;
}

TEST(Pack, StoresTheFilesThemselvesInOrderOfTheirNames) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 3, 10, 1);
  PackOptions o = options(dir / "in", dir / "out");
  o.transcode = false;
  const PackResult result = pack(o);
  EXPECT_EQ(result.splits.at(0).samples, 30U);
  EXPECT_EQ(result.splits.at(0).shards.size(), 5U);
  EXPECT_EQ(result.rejected, 0U);
  const auto samples = all_samples(dir / "out", "train");
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(dir / "in")) {
    if (entry.is_regular_file()) names.insert(fs::relative(entry.path(), dir / "in").string());
  }
  size_t i = 0;
  for (const auto& name : names) {
    EXPECT_EQ(samples[i].bytes, test::read_bytes(dir / "in" / name));
    EXPECT_THAT(samples[i].labels, ElementsAre(name[5] - '0'));
    Image image;
    ASSERT_TRUE(decode_image(samples[i].bytes, image).ok());
    EXPECT_EQ(image.width, samples[i].width);
    EXPECT_EQ(image.height, samples[i].height);
    ++i;
  }
  EXPECT_TRUE(verify_shards(dir / "out").empty());
  EXPECT_FALSE(fs::exists(dir / "out/.pack-train"));
  EXPECT_FALSE(fs::exists(dir / "out/rejected.tsv"));
}

TEST(Pack, TranscodingKeepsPixelsSplitsAndOrder) {
  const test::TempDir dir;
  for (uint64_t k = 0; k < 40; ++k) {
    const auto c = test::choose_case(k, 400);
    test::write_bytes(dir / "in" / ("class" + std::to_string(k % 3)) / (std::to_string(k) + ".jpg"),
                      test::draw_jpeg_case(c));
  }
  PackOptions o = options(dir / "in", dir / "plain");
  o.holdout = 8;
  o.transcode = false;
  const PackResult plain = pack(o);
  o.output = dir / "anew";
  o.transcode = true;
  const PackResult anew = pack(o);
  int differ = 0;
  for (size_t k = 0; k < 2; ++k) {
    const auto a = all_samples(dir / "plain", plain.splits[k].name),
               b = all_samples(dir / "anew", anew.splits[k].name);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      Image from, to;
      ASSERT_TRUE(decode_image(a[i].bytes, from).ok());
      ASSERT_TRUE(decode_image(b[i].bytes, to).ok());
      EXPECT_EQ(from.rgb, to.rgb);
      EXPECT_EQ(a[i].labels, b[i].labels);
      EXPECT_EQ(a[i].width, b[i].width);
      EXPECT_LE(b[i].bytes.size(), a[i].bytes.size() + a[i].bytes.size() * 15 / 1000);
      differ += a[i].bytes != b[i].bytes;
    }
  }
  EXPECT_GT(differ, 25);
  EXPECT_TRUE(pack(o).already_complete);
  o.transcode = false;
  EXPECT_THAT(error_of(o, ExitCode::kData), HasSubstr("there already"));
}

// What is packed is decoded by its index; a file that brings a wrong one is damaged.
TEST(Pack, AForeignSegmentIndexIsChecked) {
  const test::TempDir dir;
  ByteVector stored;
  const ByteVector drawn = test::draw_jpeg(400, 300, 5);
  ASSERT_TRUE(transcode_jpeg(drawn, {}, stored));
  test::write_bytes(dir / "in/a/good.jpg", stored);
  const auto at = std::search(stored.begin(), stored.end(), kSegmentIndexName.begin(),
                              kSegmentIndexName.end()) +
                  static_cast<std::ptrdiff_t>(kSegmentIndexName.size());
  at[0] = static_cast<uint8_t>(at[0] + 1);  // one segment longer, the next shorter
  at[2] = static_cast<uint8_t>(at[2] - 1);
  test::write_bytes(dir / "in/a/wrong.jpg", stored);
  PackOptions o = options(dir / "in", dir / "out");
  o.transcode = false;
  EXPECT_EQ(pack(o).rejected, 1U);
  EXPECT_THAT(read_file(dir / "out/rejected.tsv"),
              HasSubstr("a/wrong.jpg\tJPEG: its segment index is wrong"));
  o.output = dir / "anew";
  o.transcode = true;
  EXPECT_EQ(pack(o).rejected, 0U);  // the index is made anew
}

TEST(Pack, WorkersTarOrderAndContainerDoNotMatter) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 3, 12, 5);
  std::vector<std::pair<std::string, ByteVector>> members;
  for (const auto& entry : fs::recursive_directory_iterator(dir / "in")) {
    if (entry.is_regular_file())
      members.emplace_back("train/" + fs::relative(entry.path(), dir / "in").string(),
                           test::read_bytes(entry.path()));
  }
  std::reverse(members.begin(), members.end());
  test::write_bytes(dir / "in.tar", test::make_tar(members));
  PackOptions o = options(dir / "in", dir / "one");
  o.holdout = 5;
  o.workers = 1;
  pack(o);
  const auto expected = test::hash_folder(dir / "one");
  for (const int workers : {2, 4}) {
    o.workers = workers;
    o.output = dir / ("w" + std::to_string(workers));
    pack(o);
    EXPECT_EQ(test::hash_folder(o.output), expected) << workers;
  }
  o.input = dir / "in.tar";
  o.output = dir / "tar";
  pack(o);
  EXPECT_EQ(test::hash_folder(o.output), expected);
}

TEST(Pack, EqualContentHasAnEqualFingerprint) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 2, 4, 5);
  PackOptions o = options(dir / "in", dir / "a");
  const std::string first = pack(o).splits[0].fingerprint;
  fs::rename(dir / "in/class0/0.jpg", dir / "in/class0/00.jpg");  // the order stays
  o.output = dir / "b";
  o.shard_samples = 3;
  EXPECT_EQ(pack(o).splits[0].fingerprint, first);
  test::write_bytes(dir / "in/class0/00.jpg", test::draw_jpeg(20, 20, 999));
  o.output = dir / "c";
  EXPECT_NE(pack(o).splits[0].fingerprint, first);
}

TEST(Pack, HoldoutTakesCopiesTogether) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 2, 20, 3);
  for (int i = 0; i < 10; ++i) {  // every second picture of class 0 stands in class 1 as well
    fs::copy_file(dir / "in/class0" / (std::to_string(2 * i) + ".jpg"),
                  dir / "in/class1" / ("copy" + std::to_string(i) + ".jpg"));
  }
  for (const uint64_t holdout : {1, 2, 7, 20}) {
    PackOptions o = options(dir / "in", dir / ("out" + std::to_string(holdout)));
    o.holdout = holdout;
    const PackResult result = pack(o);
    ASSERT_EQ(result.splits.size(), 2U);
    EXPECT_EQ(result.splits[1].name, "holdout");
    EXPECT_EQ(result.splits[1].samples, holdout);
    EXPECT_EQ(result.splits[0].samples, 50 - holdout);
    std::set<std::string> held;
    for (const auto& s : all_samples(o.output, "holdout"))
      held.insert(sha256(std::as_bytes(std::span(s.bytes))));
    for (const auto& s : all_samples(o.output, "train"))
      EXPECT_EQ(held.count(sha256(std::as_bytes(std::span(s.bytes)))), 0U);
    EXPECT_TRUE(pack(o).already_complete);
  }
  PackOptions all = options(dir / "in", dir / "none");
  all.holdout = 50;
  EXPECT_THAT(error_of(all, ExitCode::kData), HasSubstr("leaves no sample"));
}

TEST(Pack, HoldoutDependsOnContentAlone) {
  std::vector<ScanRecord> records(6);
  const uint64_t hashes[] = {50, 10, 40, 10, 30, 10};
  for (size_t i = 0; i < 6; ++i) {
    records[i].accepted = true;
    records[i].content_hash = hashes[i];
  }
  EXPECT_THAT(assign_splits(records, 1).held_out, ElementsAre(4));  // three copies of 10 do not fit
  EXPECT_THAT(assign_splits(records, 3).held_out, ElementsAre(1, 3, 5));
  EXPECT_THAT(assign_splits(records, 4).held_out, ElementsAre(1, 3, 4, 5));
  records[4].accepted = false;
  EXPECT_THAT(assign_splits(records, 1).held_out, ElementsAre(2));
  EXPECT_THAT(assign_splits(records, 0).main, ElementsAre(0, 1, 2, 3, 5));
}

TEST(Pack, RefusedFilesAreListedWithTheirReason) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 2, 3, 8);
  test::write_bytes(dir / "in/class0/zero.jpg", {});
  test::write_bytes(dir / "in/class1/tab\tname.jpg", {'<', 'h', 't', 'm'});
  ByteVector cut = test::draw_jpeg(30, 30, 1);
  cut.resize(cut.size() / 2);
  test::write_bytes(dir / "in/class1/cut.jpg", cut);
  const PackResult result = pack(options(dir / "in", dir / "out"));
  EXPECT_EQ(result.rejected, 3U);
  EXPECT_EQ(result.splits[0].samples, 6U);
  const std::string rejected = read_file(dir / "out/rejected.tsv");
  EXPECT_THAT(rejected, HasSubstr("class0/zero.jpg\tempty file\ttrain\n"));
  EXPECT_THAT(rejected, HasSubstr("class1/tab\\tname.jpg\tnot an image"));
  EXPECT_THAT(rejected, HasSubstr("class1/cut.jpg\tJPEG: "));
  test::draw_class_folders(dir / "test", 2, 2, 80);
  test::write_bytes(dir / "test/class0/bad.jpg", {1});
  pack(options(dir / "test", dir / "out", "test"));
  const std::string both = read_file(dir / "out/rejected.tsv");
  EXPECT_EQ(both.find(rejected), 0U);
  EXPECT_THAT(both, HasSubstr("class0/bad.jpg"));
}

TEST(Pack, NothingLeftIsAnError) {
  const test::TempDir dir;
  test::write_bytes(dir / "in/a/x.jpg", {1, 2, 3});
  EXPECT_THAT(error_of(options(dir / "in", dir / "out"), ExitCode::kData), HasSubstr("no image"));
  EXPECT_THAT(read_file(dir / "out/rejected.tsv"), HasSubstr("a/x.jpg\tnot an image"));
  EXPECT_FALSE(has_dataset_index(dir / "out"));
}

TEST(Pack, SplitsShareTheirClasses) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 3, 3, 8);
  test::draw_class_folders(dir / "fewer", 2, 2, 90);
  test::draw_class_folders(dir / "more", 4, 2, 90);
  pack(options(dir / "in", dir / "out"));
  const auto before = test::hash_folder(dir / "out");
  EXPECT_THAT(error_of(options(dir / "more", dir / "out", "val"), ExitCode::kData),
              HasSubstr("\"class3\""));
  EXPECT_EQ(test::hash_folder(dir / "out"), before);
  pack(options(dir / "fewer", dir / "out", "test"));
  EXPECT_EQ(ShardDataset(dir / "out", "test").class_names().size(), 3U);
  EXPECT_EQ(ShardDataset(dir / "out", "train").size(), 9U);
}

TEST(Pack, ManifestWithSeveralLabels) {
  const test::TempDir dir;
  for (int i = 0; i < 3; ++i)
    test::write_bytes(dir / "img" / (std::to_string(i) + ".jpg"),
                      test::draw_jpeg(12, 9, static_cast<uint64_t>(i)));
  write_file_atomic(dir / "m.tsv",
                    "img/1.jpg\tdog,cat\nimg/0.jpg\tant\nimg/2.jpg\tcat\nimg/gone.jpg\tcat\n");
  PackOptions o = options(dir / "m.tsv", dir / "out");
  EXPECT_THAT(error_of(o, ExitCode::kData), HasSubstr("line 1"));
  o.multi_label = true;
  const PackResult result = pack(o);
  EXPECT_EQ(result.rejected, 1U);
  EXPECT_THAT(read_file(dir / "out/rejected.tsv"),
              HasSubstr("img/gone.jpg\tcannot read: No such file"));
  const auto samples = all_samples(dir / "out", "train");
  ASSERT_EQ(samples.size(), 3U);
  EXPECT_THAT(samples[0].labels, ElementsAre(0));
  EXPECT_THAT(samples[1].labels, ElementsAre(2, 1));
  EXPECT_TRUE(read_dataset_index(dir / "out").find("train")->multi_label);
}

TEST(Pack, ResizedImagesAreSmallerJpegs) {
  const test::TempDir dir;
  test::write_bytes(dir / "in/a/big.jpg", test::draw_jpeg(90, 60, 1));
  test::write_bytes(dir / "in/a/small.jpg", test::draw_jpeg(30, 18, 2));
  test::write_bytes(dir / "in/a/turned.jpg",
                    test::with_exif(test::draw_jpeg(90, 60, 3), test::exif_block(6, false)));
  PackOptions o = options(dir / "in", dir / "out");
  o.resize_short = 20;
  o.transcode = false;
  pack(o);
  const auto samples = all_samples(dir / "out", "train");
  EXPECT_EQ(std::pair(samples[0].width, samples[0].height),
            (std::pair<uint16_t, uint16_t>(30, 20)));
  EXPECT_EQ(samples[1].bytes,
            test::read_bytes(dir / "in/a/small.jpg"));  // never enlarged, never encoded again
  EXPECT_EQ(std::pair(samples[2].width, samples[2].height),
            (std::pair<uint16_t, uint16_t>(20, 30)));
  Image image;
  ASSERT_TRUE(decode_image(samples[2].bytes, image).ok());
  EXPECT_EQ(image.width, 20);
}

TEST(Pack, AnotherPackIsNotContinued) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 2, 3, 8);
  PackOptions o = options(dir / "in", dir / "out");
  pack(o);
  EXPECT_TRUE(pack(o).already_complete);
  o.shard_samples = 2;
  EXPECT_THAT(error_of(o, ExitCode::kData), HasSubstr("there already"));
  o.overwrite = true;
  EXPECT_EQ(pack(o).splits[0].shards.size(), 3U);
  o.overwrite = false;
  fs::create_directories(dir / "half/.pack-train");
  write_file_atomic(dir / "half/.pack-train/plan.json", "{\"source\":\"other\"}");
  o.output = dir / "half";
  EXPECT_THAT(error_of(o, ExitCode::kData), HasSubstr("unfinished pack"));
  o.overwrite = true;
  EXPECT_EQ(pack(o).splits[0].samples, 6U);
}

TEST(Pack, OverwritingASplitReplacesItsHoldout) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 2, 6, 8);
  PackOptions o = options(dir / "in", dir / "out");
  o.holdout = 3;
  pack(o);
  o.holdout = 0;
  o.overwrite = true;
  EXPECT_EQ(pack(o).splits[0].samples, 12U);
  EXPECT_EQ(read_dataset_index(dir / "out").find("holdout"), nullptr);
  EXPECT_FALSE(fs::exists(dir / "out/holdout-00000.h5"));
}

TEST(Pack, AMissingShardIsPackedAgain) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 2, 8, 8);
  const PackOptions o = options(dir / "in", dir / "out");
  pack(o);
  const auto before = test::hash_folder(dir / "out");
  fs::remove(dir / "out/train-00001.h5");
  EXPECT_FALSE(pack(o).already_complete);
  EXPECT_EQ(test::hash_folder(dir / "out"), before);
}

TEST(Pack, OneAtATime) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 1, 2, 8);
  fs::create_directories(dir / "out");
  const PackOptions o = options(dir / "in", dir / "out");
  {
    const PackLock lock(dir / "out");
    EXPECT_THAT(error_of(o, ExitCode::kOther), HasSubstr("another nf-pack"));
  }
  pack(o);
}

TEST(Pack, BadOptionsAreUsageErrors) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "in", 1, 2, 8);
  const PackOptions good = options(dir / "in", dir / "out");
  const std::vector<std::function<void(PackOptions&)>> spoil = {
      [](PackOptions& o) { o.split = "a/b"; },
      [](PackOptions& o) { o.split = ""; },
      [](PackOptions& o) { o.shard_samples = 0; },
      [](PackOptions& o) { o.quality = 101; },
      [](PackOptions& o) { o.workers = -1; },
      [](PackOptions& o) { o.multi_label = true; },
      [](PackOptions& o) { o.split = "holdout", o.holdout = 1; }};
  for (const auto& change : spoil) {
    PackOptions o = good;
    change(o);
    EXPECT_NE(error_of(o, ExitCode::kUsage), "");
  }
  PackOptions missing = good;
  missing.input = dir / "nothing";
  EXPECT_THAT(error_of(missing, ExitCode::kData), HasSubstr("does not exist"));
  EXPECT_FALSE(fs::exists(dir / "out"));  // nothing was begun
}

}  // namespace
}  // namespace nf::data

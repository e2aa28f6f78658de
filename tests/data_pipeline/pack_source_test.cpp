// The inputs of nf-pack: tar variants, TSV lines, folders; and what is said about bad ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data_pipeline/image_source.h"
#include "data_pipeline/manifest.h"
#include "data_pipeline/tar_reader.h"
#include "tests/data_pipeline/store_fixtures.h"
#include "tests/support/paths.h"

namespace nf::data {
namespace {

namespace fs = std::filesystem;
using test::ByteVector;
using testing::ElementsAre;
using testing::HasSubstr;
using Names = std::vector<std::string>;

std::string data_error(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kData);
    return e.what();
  }
  return "";
}

Names names_of(const ImageSource& source) {
  Names names;
  for (uint64_t i = 0; i < source.size(); ++i) names.push_back(source.name(i));
  return names;
}

std::vector<std::vector<int32_t>> labels_of(const ImageSource& source) {
  std::vector<std::vector<int32_t>> labels;
  for (uint64_t i = 0; i < source.size(); ++i)
    labels.emplace_back(source.labels(i).begin(), source.labels(i).end());
  return labels;
}

TEST(Tar, LongNamesOfBothKindsAndOrder) {
  const std::string deep = "class/" + std::string(150, 'd') + "/" + std::string(90, 'f') + ".jpg";
  for (const bool pax : {false, true}) {
    const test::TempDir dir;
    test::write_bytes(
        dir / "x.tar",
        test::make_tar({{"z/2", {1, 2, 3}}, {deep, {4}}, {"./a/1", {}}, {"z/2", {9, 9}}}, pax));
    ASSERT_TRUE(is_tar(dir / "x.tar"));
    const auto members = read_tar_index(dir / "x.tar");
    ASSERT_EQ(members.size(), 4U);
    EXPECT_EQ(members[1].name, deep);
    EXPECT_EQ(members[2].name, "a/1");
    const ImageSource source({dir / "x.tar", "train", "", false}, {});
    EXPECT_THAT(names_of(source), ElementsAre("a/1", deep, "z/2"));
    EXPECT_EQ(source.class_names(), (Names{"a", "class", "z"}));
    ByteVector bytes;
    ASSERT_TRUE(source.read(2, bytes).ok());
    EXPECT_EQ(bytes, (ByteVector{9, 9}));  // the later one of two members with one name
  }
}

TEST(Tar, DamageIsNamed) {
  const test::TempDir dir;
  const ByteVector whole =
      test::make_tar({{"a/1", ByteVector(2000, 7)}, {"a/2", ByteVector(600, 8)}});
  test::write_bytes(dir / "cut.tar", ByteVector(whole.begin(), whole.begin() + 1500));
  EXPECT_THAT(data_error([&] { read_tar_index(dir / "cut.tar"); }), HasSubstr("truncated"));
  ByteVector damaged = whole;
  damaged[2560 + 3] ^= 1;  // in the name of the second header
  test::write_bytes(dir / "bad.tar", damaged);
  EXPECT_THAT(data_error([&] { read_tar_index(dir / "bad.tar"); }), HasSubstr("checksum"));
  test::write_bytes(dir / "zip.tar", {0x1f, 0x8b, 8, 0});
  EXPECT_THAT(data_error([&] {
                ImageSource({dir / "zip.tar", "train", "", false}, {});
              }),
              HasSubstr("not a readable tar"));
  uint64_t state = 3;
  for (int round = 0; round < 500; ++round) {  // random damage: an Error or an index, nothing else
    ByteVector noisy = whole;
    for (int k = 0; k < 4; ++k) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      noisy[(state >> 33) % 512] = static_cast<uint8_t>(state >> 25);
    }
    test::write_bytes(dir / "noisy.tar", noisy);
    try {
      for (const auto& member : read_tar_index(dir / "noisy.tar"))
        EXPECT_LE(member.at + member.bytes, noisy.size());
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kData);
    }
  }
}

TEST(Source, TheFolderNamedAsTheSplitIsTheRoot) {
  const test::TempDir dir;
  for (const char* name : {"train/b/1", "train/a/x/2", "test/a/3", "train/.hidden/4", "train/a/.5"})
    test::write_bytes(dir.path() / name, {1});
  const ImageSource source({dir.path(), "train", "", false}, {});
  EXPECT_THAT(names_of(source), ElementsAre("a/x/2", "b/1"));
  EXPECT_THAT(labels_of(source), ElementsAre(ElementsAre(0), ElementsAre(1)));
  const ImageSource other({dir.path(), "val", "test", false}, {"a", "b"});
  EXPECT_THAT(names_of(other), ElementsAre("a/3"));
  const ImageSource whole({dir.path(), "train", ".", false}, {});
  EXPECT_EQ(whole.class_names(), (Names{"test", "train"}));
  EXPECT_THAT(data_error([&] {
                ImageSource({dir.path(), "train", "nope", false}, {});
              }),
              HasSubstr("no files"));
}

TEST(Source, AClassNamedAsTheSplitStaysAClass) {
  const test::TempDir dir;
  for (const char* name : {"train/1", "train/2", "ship/3"})
    test::write_bytes(dir.path() / name, {1});
  const ImageSource source({dir.path(), "train", "", false}, {});
  EXPECT_EQ(source.class_names(), (Names{"ship", "train"}));
}

TEST(Source, FlatFoldersAreOneClassAndStrayFilesAreRejected) {
  const test::TempDir dir;
  test::write_bytes(dir.path() / "flat/1.jpg", {1});
  test::write_bytes(dir.path() / "mixed/cat/1.jpg", {1});
  test::write_bytes(dir.path() / "mixed/readme.txt", {1});
  const ImageSource flat({dir / "flat", "train", "", false}, {});
  EXPECT_EQ(flat.class_names(), Names{"flat"});
  const ImageSource mixed({dir / "mixed", "train", "", false}, {});
  EXPECT_THAT(names_of(mixed), ElementsAre("cat/1.jpg"));
  ASSERT_EQ(mixed.rejected().size(), 1U);
  EXPECT_EQ(mixed.rejected()[0].name, "readme.txt");
}

TEST(Source, LinksAreFollowedAndCyclesCut) {
  const test::TempDir dir;
  test::write_bytes(dir.path() / "real/cat/1.jpg", {1});
  fs::create_directories(dir / "in");
  fs::create_directory_symlink(dir / "real/cat", dir / "in/cat");
  fs::create_directory_symlink(dir / "real", dir / "real/cat/loop");
  const ImageSource source({dir / "in", "train", "", false}, {});
  EXPECT_THAT(names_of(source), testing::Contains("cat/1.jpg"));
}

TEST(Source, ClassesMustBeKnown) {
  const test::TempDir dir;
  for (const char* name : {"cat/1", "dog/2"}) test::write_bytes(dir.path() / name, {1});
  const ImageSource source({dir.path(), "test", "", false}, {"ant", "cat", "dog"});
  EXPECT_THAT(labels_of(source), ElementsAre(ElementsAre(1), ElementsAre(2)));
  EXPECT_EQ(source.class_names().size(), 3U);
  EXPECT_THAT(data_error([&] {
                ImageSource({dir.path(), "test", "", false}, {"ant", "cat"});
              }),
              HasSubstr("\"dog\""));
}

TEST(Source, MissingAndEmptyInputs) {
  const test::TempDir dir;
  EXPECT_THAT(data_error([&] {
                ImageSource({dir / "no", "train", "", false}, {});
              }),
              HasSubstr("does not exist"));
  EXPECT_THAT(data_error([&] {
                ImageSource({dir.path(), "train", "", false}, {});
              }),
              HasSubstr("holds no files"));
  test::write_bytes(dir / "empty.tsv", {});
  EXPECT_THAT(data_error([&] {
                ImageSource({dir / "empty.tsv", "train", "", false}, {});
              }),
              HasSubstr("empty"));
}

Manifest manifest(const std::string& text, bool multi_label = false, const Names& known = {}) {
  const test::TempDir dir;
  write_file_atomic(dir / "m.tsv", text);
  return read_manifest(dir / "m.tsv", multi_label, known);
}

TEST(Manifest, NamesAndIndices) {
  const Manifest named = manifest("b.jpg\tdog\r\na.jpg\tcat\n\n");
  EXPECT_EQ(named.class_names, (Names{"cat", "dog"}));
  ASSERT_EQ(named.rows.size(), 2U);
  EXPECT_EQ(named.rows[0].path, "a.jpg");
  EXPECT_THAT(named.rows[0].labels, ElementsAre(0));
  const Manifest indexed = manifest("x\t10\ny\t2\n");
  EXPECT_EQ(indexed.class_names.size(), 11U);
  EXPECT_EQ(indexed.class_names[10], "10");
  EXPECT_THAT(indexed.rows[0].labels, ElementsAre(10));
  const Manifest multi = manifest("x\tdog,cat\n", true);
  EXPECT_THAT(multi.rows[0].labels, ElementsAre(1, 0));
  EXPECT_THAT(manifest("x\t1\n", false, {"cat", "dog"}).rows[0].labels, ElementsAre(1));
}

TEST(Manifest, EveryBadLineIsListed) {
  const std::string text =
      "good\tcat\nno tab\n\tcat\nx\t\ny\tcat,dog\nz\ta\tb\ngood\tdog\nw\tcat,cat\n";
  const std::string error = data_error([&] { manifest(text); });
  EXPECT_THAT(error, HasSubstr("7 bad lines"));
  for (const char* part : {"line 2: no tab", "line 3: empty path", "line 4: empty label",
                           "line 5: more than one label", "line 6: more than two columns",
                           "line 7: the path of line 1 again", "line 8"}) {
    EXPECT_THAT(error, HasSubstr(part));
  }
  EXPECT_THAT(data_error([&] {
                manifest("a\t-1\nb\t3\nc\t2\n", false, {"x", "y", "z"});
              }),
              testing::AllOf(HasSubstr("line 1: label -1 is out of range"),
                             HasSubstr("line 2: label 3"), testing::Not(HasSubstr("line 3"))));
  EXPECT_THAT(data_error([&] { manifest("a\t99999999999\n"); }), HasSubstr("out of range"));
}

}  // namespace
}  // namespace nf::data

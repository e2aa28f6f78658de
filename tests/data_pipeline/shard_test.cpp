// The shard format: what is written is read back, by us and through the plain HDF5 API; equal input
// gives equal bytes; what is missing or foreign is named. Damage: integrity_test.cpp.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <atomic>
#include <functional>
#include <thread>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "data_pipeline/dataset_index.h"
#include "data_pipeline/shard_dataset.h"
#include "data_pipeline/shard_format.h"
#include "tests/data_pipeline/store_fixtures.h"
#include "tests/data_pipeline/stored_samples.h"
#include "tests/support/paths.h"

namespace nf::data {
namespace {

namespace fs = std::filesystem;
using test::ByteVector;
using test::make_samples;
using test::write_dataset;
using testing::HasSubstr;

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kData);
    EXPECT_NE(e.where(), "");
    EXPECT_NE(e.hint(), "");
    return e.what();
  }
  return "";
}

std::string open_error(const fs::path& folder, const std::string& split = "train") {
  return error_of([&] { ShardDataset(folder, split); });
}

TEST(SampleCrc, HasTheDocumentedByteOrder) {
  const std::vector<int32_t> labels = {3, -1};
  const ByteVector bytes = {'a', 'b', 'c'};
  EXPECT_EQ(sample_crc32c(1, labels, bytes),
            0x535DD432U);  // computed apart: struct.pack('<QIii', 1, 2, 3, -1) + b'abc'
}

TEST(SampleCrc, CombinesWithoutTheBytes) {
  const std::vector<int32_t> labels = {7, 8, 9};
  for (const size_t size : {0, 1, 2, 3, 8, 100, 4097, 70000}) {
    ByteVector bytes(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * i + 3 * i);
    EXPECT_EQ(sample_crc32c(size + 5, labels, crc32c(std::as_bytes(std::span(bytes))), size),
              sample_crc32c(size + 5, labels, bytes));
  }
}

TEST(Shard, ReadsBackWhatWasWritten) {
  const test::TempDir dir;
  const auto samples = make_samples(23);
  write_dataset(dir.path(), samples, 10);
  const ShardDataset dataset(dir.path(), "train");
  EXPECT_EQ(dataset.size(), 23U);
  EXPECT_EQ(dataset.shard_samples(), 10U);
  EXPECT_EQ(dataset.class_names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(dataset.fingerprint().size(), 64U);
  SampleData data;
  for (size_t i = 23; i-- > 0;) {
    ASSERT_EQ(dataset.read(i, data).reason, "");
    EXPECT_EQ(data.bytes, samples[i].bytes);
    EXPECT_EQ(data.labels, samples[i].labels);
    EXPECT_EQ(data.width, samples[i].width);
    EXPECT_EQ(data.height, samples[i].height);
  }
  EXPECT_TRUE(verify_shards(dir.path()).empty());
}

TEST(Shard, EqualInputGivesEqualBytes) {
  const test::TempDir dir;
  const auto samples = make_samples(40);
  write_dataset(dir / "a", samples, 16);
  write_dataset(dir / "b", samples, 16);
  EXPECT_EQ(test::hash_folder(dir / "a"), test::hash_folder(dir / "b"));
}

std::vector<uint64_t> read_array(hid_t file, const char* name, size_t element, H5T_class_t kind) {
  const hid_t set = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(set),
              type = H5Dget_type(set);
  const hid_t plist = H5Dget_create_plist(set);
  EXPECT_EQ(H5Tget_size(type), element) << name;
  EXPECT_EQ(H5Tget_class(type), kind) << name;
  EXPECT_EQ(H5Pget_layout(plist), H5D_CONTIGUOUS) << name;
  EXPECT_EQ(H5Pget_nfilters(plist), 0) << name;
  EXPECT_EQ(H5Sget_simple_extent_ndims(space), 1) << name;
  std::vector<uint64_t> values(static_cast<size_t>(H5Sget_simple_extent_npoints(space)));
  EXPECT_GE(H5Dread(set, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
  if (values.size() * element >= kShardAlignment) {
    EXPECT_EQ(H5Dget_offset(set) % kShardAlignment, 0U) << name;
  }
  H5Pclose(plist), H5Tclose(type), H5Sclose(space), H5Dclose(set);
  return values;
}

TEST(Shard, PlainHdf5ReadsIt) {
  const test::TempDir dir;
  const auto samples = make_samples(300);
  write_dataset(dir.path(), samples, 300);
  const hid_t file = H5Fopen((dir / "train-00000.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  const auto data = read_array(file, "/data", 1, H5T_INTEGER),
             offset = read_array(file, "/offset", 8, H5T_INTEGER);
  const auto crc = read_array(file, "/crc32c", 4, H5T_INTEGER),
             label = read_array(file, "/label", 4, H5T_INTEGER);
  const auto label_offset = read_array(file, "/label_offset", 4, H5T_INTEGER);
  const auto width = read_array(file, "/width", 2, H5T_INTEGER),
             height = read_array(file, "/height", 2, H5T_INTEGER);
  H5Fclose(file);
  ASSERT_EQ(offset.size(), 301U);
  ASSERT_EQ(label_offset.size(), 301U);
  for (size_t i = 0; i < 300; ++i) {
    const ByteVector bytes(data.begin() + static_cast<std::ptrdiff_t>(offset[i]),
                           data.begin() + static_cast<std::ptrdiff_t>(offset[i + 1]));
    const std::vector<int32_t> labels(
        label.begin() + static_cast<std::ptrdiff_t>(label_offset[i]),
        label.begin() + static_cast<std::ptrdiff_t>(label_offset[i + 1]));
    EXPECT_EQ(bytes, samples[i].bytes);
    EXPECT_EQ(labels, samples[i].labels);
    EXPECT_EQ(width[i], samples[i].width);
    EXPECT_EQ(height[i], samples[i].height);
    EXPECT_EQ(crc[i], sample_crc32c(i, labels, bytes));
  }
}

TEST(ShardDataset, SaysWhatIsMissing) {
  const test::TempDir dir;
  EXPECT_THAT(open_error(dir / "nowhere"), HasSubstr("does not exist"));
  EXPECT_THAT(open_error(dir.path()), HasSubstr("no dataset.json"));
  write_dataset(dir.path(), make_samples(12), 5);
  try {
    const ShardDataset set(dir.path(), "val");
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("no split \"val\""));
    EXPECT_THAT(e.hint(), HasSubstr("train"));
  }
  fs::remove(dir / "train-00001.h5");
  EXPECT_THAT(open_error(dir.path()), HasSubstr("missing"));
  EXPECT_THAT(verify_shards(dir.path()),
              testing::ElementsAre(HasSubstr("train-00001.h5: missing")));
}

TEST(ShardDataset, RefusesTruncatedAndForeignShards) {
  const test::TempDir dir;
  write_dataset(dir / "a", make_samples(12), 5);
  auto others = make_samples(12);
  others[7].bytes[0] ^= 1;
  write_dataset(dir / "b", others, 5);
  const fs::path file = dir / "a/train-00001.h5";
  const auto size = fs::file_size(file);
  fs::resize_file(file, size - 1);
  EXPECT_THAT(open_error(dir / "a"), HasSubstr("truncated"));
  fs::copy_file(dir / "b/train-00001.h5", file, fs::copy_options::overwrite_existing);
  ASSERT_EQ(fs::file_size(file), size);
  EXPECT_THAT(open_error(dir / "a"), HasSubstr("another data set"));
}

TEST(ShardDataset, RefusesOtherVersionsAndBrokenIndexes) {
  const test::TempDir dir;
  write_dataset(dir.path(), make_samples(4), 4);
  const fs::path file = dir / kDatasetFile;
  const std::string intact = read_file(file);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = intact;
    text.replace(text.find(from), from.size(), to);
    write_file_atomic(file, text);
    return open_error(dir.path());
  };
  EXPECT_THAT(with("\"version\": 1", "\"version\": 99"), HasSubstr("version 99"));
  EXPECT_THAT(with("{", "["), HasSubstr("not valid JSON"));
  EXPECT_THAT(with("\"shard_samples\": 4", "\"shard_samples\": 0"), HasSubstr("damaged"));
  EXPECT_THAT(with("\"samples\": 4", "\"samples\": 5"), HasSubstr("do not add up"));
  EXPECT_THAT(with("train-00000.h5", "../train-000.h5"), HasSubstr("slash"));
}

TEST(ShardDataset, ManyThreadsReadManyShardsAtOnce) {
  const test::TempDir dir;
  const auto samples = make_samples(150);
  write_dataset(dir.path(), samples, 1);  // more shards than may be open together
  const ShardDataset dataset(dir.path(), "train");
  std::vector<std::jthread> threads;
  std::atomic<int> wrong{0};
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      SampleData data;
      for (uint64_t k = 0; k < 600; ++k) {
        const uint64_t i = (k * 7 + t * 13) % 150;
        if (!dataset.read(i, data).ok() || data.bytes != samples[i].bytes ||
            data.labels != samples[i].labels)
          ++wrong;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(wrong, 0);
  const auto open_files =
      std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  EXPECT_LT(open_files, 64 + 20);
}

}  // namespace
}  // namespace nf::data

// Damage to stored data, copied and mapped: every single flipped bit of a shard, every truncation,
// swapped records, labels and files. nf-audit data finds all of it; training never takes a sample
// that is not what was packed. And what is not damage, a shard saved again by other software, reads
// as before.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <unistd.h>

#include <fstream>
#include <map>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data_pipeline/audit_data.h"
#include "data_pipeline/shard_dataset.h"
#include "tests/data_pipeline/stored_samples.h"
#include "tests/support/paths.h"

namespace nf::data {
namespace {

namespace fs = std::filesystem;
using test::make_samples;
using test::StoredSample;
using test::write_dataset;

class FileBits {
 public:
  explicit FileBits(const fs::path& file) : fd_(::open(file.c_str(), O_RDWR | O_CLOEXEC)) {}
  ~FileBits() { ::close(fd_); }
  FileBits(const FileBits&) = delete;
  FileBits& operator=(const FileBits&) = delete;

  void flip(uint64_t bit) const {
    uint8_t byte = 0;
    const auto at = static_cast<off_t>(bit / 8);
    ASSERT_EQ(::pread(fd_, &byte, 1, at), 1);
    byte ^= static_cast<uint8_t>(1 << (bit % 8));
    ASSERT_EQ(::pwrite(fd_, &byte, 1, at), 1);
  }
  // Exchanges two stretches of equal length.
  void swap(uint64_t a, uint64_t b, size_t bytes) const {
    std::vector<uint8_t> x(bytes), y(bytes);
    const auto size = static_cast<ssize_t>(bytes);
    ASSERT_EQ(::pread(fd_, x.data(), bytes, static_cast<off_t>(a)), size);
    ASSERT_EQ(::pread(fd_, y.data(), bytes, static_cast<off_t>(b)), size);
    ASSERT_EQ(::pwrite(fd_, y.data(), bytes, static_cast<off_t>(a)), size);
    ASSERT_EQ(::pwrite(fd_, x.data(), bytes, static_cast<off_t>(b)), size);
  }

 private:
  int fd_;
};

enum class Seen { kIntact, kFault, kRefused };

constexpr ReadOptions kMapped{.mapped = true, .copies_before_map = 0};

// One sample, read in both ways, which must agree.
SampleFault read_both(const ShardDataset& copied, const ShardDataset& mapped, uint64_t i,
                      SampleData& data) {
  SampleFault fault = copied.read(i, data);
  SampleView view;
  EXPECT_EQ(mapped.view(i, view).reason, fault.reason) << "sample " << i;
  if (fault.ok()) {
    EXPECT_TRUE(
        std::equal(view.bytes.begin(), view.bytes.end(), data.bytes.begin(), data.bytes.end()));
    EXPECT_EQ(view.data.labels, data.labels);
  }
  return fault;
}

// What training sees of the data set: samples as they were packed, or a fault or an error. Anything
// else fails the test.
Seen train_view(const fs::path& set, const std::vector<StoredSample>& samples) {
  Seen seen = Seen::kIntact;
  try {
    const ShardDataset copied(set, "train"), mapped(set, "train", kMapped);
    SampleData data;
    for (uint64_t i = 0; i < samples.size(); ++i) {
      if (!read_both(copied, mapped, i, data).ok()) {
        seen = Seen::kFault;
        continue;
      }
      EXPECT_EQ(data.bytes, samples[i].bytes);
      EXPECT_EQ(data.labels, samples[i].labels);
    }
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kData);
    EXPECT_NE(e.hint(), "");
    return Seen::kRefused;
  }
  return seen;
}

bool audit_passes(const fs::path& set) {
  return audit_data(set, false, 1, [](uint64_t, uint64_t) {}).passed();
}

class Integrity : public testing::Test {
 protected:
  void SetUp() override {
    write_dataset(set, samples, samples.size());
    ASSERT_EQ(train_view(set, samples), Seen::kIntact);
    ASSERT_TRUE(audit_passes(set));
  }
  void expect_found(const std::string& what) const {
    EXPECT_NE(train_view(set, samples), Seen::kIntact) << what;
    EXPECT_FALSE(audit_passes(set)) << what;
  }

  const test::TempDir dir;
  const fs::path set = dir / "set", file = dir / "set/train-00000.h5";
  const std::vector<StoredSample> samples = make_samples(3);
};

TEST_F(Integrity, EveryFlippedBitIsFoundByTheAuditAndAltersNoTrainingSample) {
  const FileBits bits(file);
  const uint64_t size = fs::file_size(file);
  std::map<Seen, uint64_t> count;
  for (uint64_t bit = 0; bit < 8 * size; ++bit) {
    bits.flip(bit);
    ++count[train_view(set, samples)];
    EXPECT_FALSE(verify_shards(set).empty()) << "what the audit begins with";
    if (bit % 16 == 5) {
      EXPECT_FALSE(audit_passes(set));
    }
    bits.flip(bit);
    if (HasFailure()) FAIL() << "bit " << bit;
  }
  EXPECT_TRUE(audit_passes(set));
  EXPECT_GT(count[Seen::kFault], 1000u);
  EXPECT_GT(count[Seen::kRefused], 3000u);
  std::printf("%llu bits: %llu refused, %llu faults, %llu without effect on a sample\n",
              8ULL * size, static_cast<unsigned long long>(count[Seen::kRefused]),
              static_cast<unsigned long long>(count[Seen::kFault]),
              static_cast<unsigned long long>(count[Seen::kIntact]));
}

// Flips that change what a sample is are faults while the file is open, too.
TEST_F(Integrity, EveryFlippedBitOfTheSamplesIsAFault) {
  const ShardLayout layout = read_shard_layout(file);
  const FileBits bits(file);
  struct Region {
    uint64_t at, size;
  };
  for (const Region& r :
       {Region{layout.data_at, layout.bytes}, Region{layout.offset_at, 8 * 4},
        Region{layout.crc32c_at, 4 * 3}, Region{layout.label_at, 4 * layout.labels},
        Region{layout.label_offset_at, 4 * 4}}) {
    for (uint64_t bit = 8 * r.at; bit < 8 * (r.at + r.size); ++bit) {
      const ShardDataset copied(set, "train"), mapped(set, "train", kMapped);
      bits.flip(bit);
      SampleData data;
      int faults = 0;
      for (uint64_t i = 0; i < samples.size(); ++i)
        faults += read_both(copied, mapped, i, data).ok() ? 0 : 1;
      EXPECT_GE(faults, 1) << "bit " << bit;
      bits.flip(bit);
    }
  }
}

TEST_F(Integrity, EveryTruncationIsFound) {
  const std::string whole = read_file(file);
  for (uint64_t size = 0; size < whole.size(); ++size) {
    std::ofstream(file, std::ios::binary) << whole.substr(0, size);
    EXPECT_EQ(train_view(set, samples), Seen::kRefused) << size;
    EXPECT_FALSE(verify_shards(set).empty());
    if (size % 16 == 0) {
      EXPECT_FALSE(audit_passes(set));
    }
    if (HasFailure()) FAIL() << size;
  }
  write_file_atomic(file, whole + '\0');
  expect_found("a byte too many");
}

TEST_F(Integrity, TruncationWhileItIsOpenIsAFault) {
  const ShardLayout layout = read_shard_layout(file);
  const ShardDataset copied(set, "train"), mapped(set, "train", kMapped);
  SampleData data;
  ASSERT_TRUE(read_both(copied, mapped, 2, data).ok());
  fs::resize_file(file, layout.data_at + layout.bytes - 1);
  EXPECT_FALSE(read_both(copied, mapped, 2, data).ok());
  EXPECT_TRUE(read_both(copied, mapped, 0, data).ok());
}

// Samples of equal sizes, so that whole records can change places.
class Swapped : public Integrity {
 protected:
  void SetUp() override {
    write_dataset(set, equal, equal.size());
    layout = read_shard_layout(file);
  }
  static std::vector<StoredSample> equals() {
    auto made = make_samples(4);
    for (StoredSample& s : made) {
      s.bytes.resize(20);
      s.labels.resize(1);
    }
    return made;
  }
  void expect_found(const std::string& what) const {
    EXPECT_EQ(train_view(set, equal), Seen::kFault) << what;
    EXPECT_FALSE(audit_passes(set)) << what;
  }
  const std::vector<StoredSample> equal = equals();
  ShardLayout layout;
};

TEST_F(Swapped, RecordsLabelsAndChecksums) {
  const FileBits bits(file);
  const auto swap_bytes = [&] { bits.swap(layout.data_at, layout.data_at + 20, 20); };
  const auto swap_labels = [&] { bits.swap(layout.label_at, layout.label_at + 4, 4); };
  const auto swap_crcs = [&] { bits.swap(layout.crc32c_at, layout.crc32c_at + 4, 4); };
  const auto swap_offsets = [&] { bits.swap(layout.offset_at + 8, layout.offset_at + 16, 8); };
  ASSERT_EQ(train_view(set, equal), Seen::kIntact);
  swap_bytes();
  expect_found("image bytes of two samples");
  swap_labels();
  expect_found("images and labels");
  swap_crcs();
  expect_found("two whole records: the index in the checksum tells");
  swap_bytes();
  expect_found("labels and checksums");
  swap_labels();
  expect_found("checksums");
  swap_crcs();
  EXPECT_EQ(train_view(set, equal), Seen::kIntact);
  swap_labels();
  expect_found("labels");
  swap_labels();
  swap_offsets();
  expect_found("offsets");
}

TEST_F(Swapped, ShardFiles) {
  write_dataset(set, equal, 2);
  fs::rename(set / "train-00000.h5", set / "x");
  fs::rename(set / "train-00001.h5", set / "train-00000.h5");
  fs::rename(set / "x", set / "train-00001.h5");
  EXPECT_EQ(train_view(set, equal), Seen::kRefused);
  EXPECT_FALSE(audit_passes(set));
}

TEST_F(Integrity, ChangedTableOfContentsIsFound) {
  const fs::path table = set / kDatasetFile;
  const std::string whole = read_file(table);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = whole;
    text.replace(text.find(from), from.size(), to);
    write_file_atomic(table, text);
  };
  with("\"a\"", "\"c\"");
  EXPECT_FALSE(audit_passes(set)) << "a class name";
  with("\"a\"", "\"a\\u0062\"");
  EXPECT_FALSE(audit_passes(set)) << "a class name, with an escape";
  with("\"sha256\": \"", "\"sha256\": \"0");
  EXPECT_FALSE(audit_passes(set)) << "a SHA-256";
  with("\"bytes\": ", "\"bytes\": 1");
  EXPECT_FALSE(audit_passes(set)) << "bytes of all images";
  with("\"fingerprint\": \"", "\"fingerprint\": \"0");
  expect_found("the fingerprint");
}

// The file as h5repack and the like would save it: every array in chunks of `chunk` elements,
// shuffled, deflated, with checksums; integers 64 bits wide and big-endian if `other_types`.
void save_again(const fs::path& from, const fs::path& to, hsize_t chunk, bool other_types) {
  const hid_t in = H5Fopen(from.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t out = H5Fcreate(to.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  ASSERT_GE(out, 0);
  for (const ShardArray which : kShardArrays) {
    const char* name = shard_array_name(which);
    const hid_t set = H5Dopen2(in, name, H5P_DEFAULT), space = H5Dget_space(set);
    const hid_t type = H5Dget_type(set), plist = H5Pcreate(H5P_DATASET_CREATE);
    const auto points = static_cast<hsize_t>(H5Sget_simple_extent_npoints(space));
    chunk = std::min(chunk, points);
    H5Pset_chunk(plist, 1, &chunk);
    H5Pset_shuffle(plist);
    H5Pset_deflate(plist, 4);
    H5Pset_fletcher32(plist);
    const hid_t saved_type = other_types && which != ShardArray::kData ? H5T_STD_I64BE : type;
    const hid_t copy = H5Dcreate2(out, name, saved_type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    std::vector<uint8_t> bytes(points * H5Tget_size(type));
    ASSERT_GE(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()), 0);
    ASSERT_GE(H5Dwrite(copy, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()), 0);
    H5Dclose(copy), H5Pclose(plist), H5Tclose(type), H5Sclose(space), H5Dclose(set);
  }
  for (const char* name : {"format", "version", "split", "first_index", "fingerprint"}) {
    const hid_t attribute = H5Aopen(in, name, H5P_DEFAULT), type = H5Aget_type(attribute);
    const hid_t space = H5Aget_space(attribute);
    std::vector<char> value(H5Tget_size(type));
    ASSERT_GE(H5Aread(attribute, type, value.data()), 0);
    const hid_t copy = H5Acreate2(out, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    ASSERT_GE(H5Awrite(copy, type, value.data()), 0);
    H5Aclose(copy), H5Sclose(space), H5Tclose(type), H5Aclose(attribute);
  }
  H5Fclose(out);
  H5Fclose(in);
}

TEST(SavedAgain, ChunkedAndCompressedShardsGiveTheSameSamples) {
  for (const bool other_types : {false, true}) {
    const test::TempDir dir;
    const auto samples = make_samples(150);
    write_dataset(dir.path(), samples, 60);
    for (const char* name : {"train-00000.h5", "train-00002.h5"}) {
      save_again(dir / name, dir / "again.h5", 64, other_types);
      fs::rename(dir / "again.h5", dir / name);
    }
    EXPECT_FALSE(read_shard_layout(dir / "train-00000.h5").contiguous);
    EXPECT_EQ(train_view(dir.path(), samples), Seen::kIntact);
    // The audit says that these are not the files that were packed, and that no sample changed.
    const DataReport report = audit_data(dir.path(), false, 1, [](uint64_t, uint64_t) {});
    EXPECT_EQ(report.problems.size(), 2u);
    EXPECT_TRUE(report.damaged.empty());
  }
}

TEST(SavedAgain, DamagedChunksAreFaults) {
  const test::TempDir dir;
  auto samples = make_samples(20);
  for (size_t i = 0; i < samples.size(); ++i)
    for (int k = 0; k < 300; ++k)
      samples[i].bytes.push_back(static_cast<uint8_t>((i * 31 + 7) * static_cast<size_t>(k * k)));
  write_dataset(dir.path(), samples, 20);
  save_again(dir / "train-00000.h5", dir / "again.h5", 512, false);
  fs::rename(dir / "again.h5", dir / "train-00000.h5");
  const FileBits bits(dir / "train-00000.h5");
  const uint64_t size = fs::file_size(dir / "train-00000.h5");
  uint64_t noticed = 0;
  for (uint64_t at = 0; at < size; at += 17) {
    bits.flip(8 * at + at % 8);
    noticed += train_view(dir.path(), samples) == Seen::kIntact ? 0 : 1;
    bits.flip(8 * at + at % 8);
    if (HasFailure()) FAIL() << at;
  }
  EXPECT_GT(noticed, 100u);
}

}  // namespace
}  // namespace nf::data

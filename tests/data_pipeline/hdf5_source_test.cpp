// HDF5 files as others make them, written here through the C API: variable-length, chunked and
// compressed. Packed, they hold the bytes (or the pixels) that went in; a shard of ours packed
// again gives the samples it had.
#include "data_pipeline/hdf5_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <algorithm>
#include <fstream>
#include <functional>

#include "core/error.h"
#include "data_pipeline/decode.h"
#include "data_pipeline/pack.h"
#include "tests/data_pipeline/store_fixtures.h"
#include "tests/support/paths.h"

namespace nf::data {
namespace {

namespace fs = std::filesystem;
using test::ByteVector;

class H5File {
 public:
  explicit H5File(const fs::path& path)
      : id_(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT)) {}
  ~H5File() { H5Fclose(id_); }
  H5File(const H5File&) = delete;
  H5File& operator=(const H5File&) = delete;

  // chunk: of the first dimension; 0: contiguous.
  void put(const char* name, hid_t type, const std::vector<hsize_t>& dims, const void* values,
           hsize_t chunk = 0) const {
    const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
    const hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    if (chunk > 0) {
      auto chunks = dims;
      chunks[0] = std::min(chunk, dims[0]);
      H5Pset_chunk(plist, static_cast<int>(chunks.size()), chunks.data());
      H5Pset_deflate(plist, 3);
    }
    const hid_t set = H5Dcreate2(id_, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    EXPECT_GE(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), 0) << name;
    H5Dclose(set), H5Pclose(plist), H5Sclose(space);
  }
  void put_files(const char* name, const std::vector<ByteVector>& files) const {
    std::vector<hvl_t> pointers;
    for (const auto& f : files) pointers.push_back({f.size(), const_cast<uint8_t*>(f.data())});
    const hid_t type = H5Tvlen_create(H5T_NATIVE_UINT8);
    put(name, type, {files.size()}, pointers.data(), 4);
    H5Tclose(type);
  }
  void put_numbers(const char* name, const std::vector<int64_t>& values) const {
    put(name, H5T_NATIVE_INT64, {values.size()}, values.data());
  }

 private:
  hid_t id_;
};

std::vector<ByteVector> jpegs(size_t count) {
  std::vector<ByteVector> files;
  for (size_t i = 0; i < count; ++i)
    files.push_back(test::draw_jpeg(30 + static_cast<int>(i), 20, i));
  return files;
}

PackOptions options_of(const fs::path& input, const fs::path& output) {
  PackOptions o;
  o.input = input;
  o.output = output;
  o.workers = 2;
  return o;
}

// Pixels and labels of every sample of a packed set.
struct Sample {
  Image image;
  std::vector<int32_t> labels;
};
std::vector<Sample> unpack(const fs::path& set, const std::string& split = "train") {
  const ShardDataset dataset(set, split);
  std::vector<Sample> samples(dataset.size());
  for (uint64_t i = 0; i < dataset.size(); ++i) {
    SampleData data;
    EXPECT_EQ(dataset.read(i, data).reason, "");
    EXPECT_EQ(decode_image(data.bytes, samples[i].image).reason, "");
    samples[i].labels = data.labels;
  }
  return samples;
}

void expect_picture(const Sample& sample, const ByteVector& file,
                    const std::vector<int32_t>& labels) {
  Image expected;
  ASSERT_TRUE(decode_image(file, expected).ok());
  EXPECT_EQ(sample.image.rgb, expected.rgb);
  EXPECT_EQ(sample.labels, labels);
}

TEST(Hdf5Source, VariableLengthFilesWithNumbers) {
  const test::TempDir dir;
  const auto files = jpegs(11);
  {
    const H5File h5(dir / "in.h5");
    h5.put_files("images", files);
    h5.put_numbers("labels", {3, 1, 0, 2, 3, 1, 0, 2, 3, 1, 5});
  }
  EXPECT_TRUE(is_hdf5(dir / "in.h5"));
  const Hdf5Source source(dir / "in.h5");
  ASSERT_EQ(source.size(), 11u);
  ByteVector bytes;
  for (const uint64_t i : {10, 0, 5}) {
    ASSERT_TRUE(source.read(i, bytes).ok());
    EXPECT_EQ(bytes, files[i]);
  }
  pack(options_of(dir / "in.h5", dir / "set"));
  const auto samples = unpack(dir / "set");
  ASSERT_EQ(samples.size(), 11u);
  expect_picture(samples[10], files[10], {5});
  expect_picture(samples[3], files[3], {2});
  EXPECT_EQ(ShardDataset(dir / "set", "train").class_names().size(), 6u);
}

TEST(Hdf5Source, DamagedMembersAreRejectedAndTheRestIsPacked) {
  const test::TempDir dir;
  auto files = jpegs(6);
  files[2].resize(files[2].size() / 2);
  {
    const H5File h5(dir / "in.h5");
    h5.put_files("image", files);
    h5.put_numbers("target", {0, 1, 0, 1, 0, 1});
  }
  const PackResult result = pack(options_of(dir / "in.h5", dir / "set"));
  EXPECT_EQ(result.rejected, 1u);
  EXPECT_EQ(result.splits[0].samples, 5u);
}

TEST(Hdf5Source, CompressedPixelsBecomeLosslessFiles) {
  const test::TempDir dir;
  std::vector<uint8_t> pixels;
  for (int k = 0; k < 9 * 12 * 17 * 3; ++k) pixels.push_back(static_cast<uint8_t>(k * k / 7));
  const std::vector<std::string> names = {"cat", "dog", "cat", "ant", "dog",
                                          "cat", "ant", "ant", "cat"};
  std::vector<char> fixed(9 * 5, '\0');
  for (size_t i = 0; i < 9; ++i) names[i].copy(&fixed[i * 5], 5);
  {
    const H5File h5(dir / "in.h5");
    h5.put("x", H5T_NATIVE_UINT8, {9, 12, 17, 3}, pixels.data(), 4);
    const hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, 5);
    h5.put("y", text, {9}, fixed.data());
    H5Tclose(text);
  }
  pack(options_of(dir / "in.h5", dir / "set"));
  const auto samples = unpack(dir / "set");
  ASSERT_EQ(samples.size(), 9u);
  for (size_t i = 0; i < 9; ++i) {
    EXPECT_EQ(samples[i].image.width, 17);
    EXPECT_EQ(samples[i].image.rgb,
              ByteVector(pixels.begin() + static_cast<long>(i * 12 * 17 * 3),
                         pixels.begin() + static_cast<long>((i + 1) * 12 * 17 * 3)));
  }
  EXPECT_EQ(ShardDataset(dir / "set", "train").class_names(),
            (std::vector<std::string>{"ant", "cat", "dog"}));
  EXPECT_EQ(samples[1].labels, std::vector<int32_t>{2});
}

TEST(Hdf5Source, GrayPixelsAndTextOfVariableLength) {
  const test::TempDir dir;
  std::vector<uint8_t> pixels;
  for (int k = 0; k < 4 * 8 * 8; ++k) pixels.push_back(static_cast<uint8_t>(k));
  {
    const H5File h5(dir / "in.h5");
    h5.put("images", H5T_NATIVE_UINT8, {4, 8, 8}, pixels.data());
    const hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, H5T_VARIABLE);
    const char* names[] = {"b", "a", "a long name", "b"};
    h5.put("labels", text, {4}, names);
    H5Tclose(text);
  }
  pack(options_of(dir / "in.h5", dir / "set"));
  const auto samples = unpack(dir / "set");
  for (size_t k = 0; k < 64; ++k) EXPECT_EQ(samples[2].image.rgb[3 * k + 1], pixels[2 * 64 + k]);
  EXPECT_EQ(samples[3].labels, std::vector<int32_t>{2});
}

TEST(Hdf5Source, OurOwnShardIsAnInputToo) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "images", 3, 5, 1);
  pack(options_of(dir / "images", dir / "first"));
  pack(options_of(dir / "first/train-00000.h5", dir / "second"));
  const auto a = unpack(dir / "first"), b = unpack(dir / "second");
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].image.rgb, b[i].image.rgb);
    EXPECT_EQ(a[i].labels, b[i].labels);
  }
}

TEST(Hdf5Source, SecondSplitKeepsTheClasses) {
  const test::TempDir dir;
  for (const char* name : {"a.h5", "b.h5", "c.h5"}) {
    const H5File h5(dir / name);
    h5.put_files("images", jpegs(4));
    h5.put_numbers("labels", {0, 1, 2, name[0] == 'c' ? 3 : 2});
  }
  pack(options_of(dir / "a.h5", dir / "set"));
  PackOptions more = options_of(dir / "b.h5", dir / "set");
  more.split = "val";
  pack(more);
  EXPECT_EQ(unpack(dir / "set", "val").size(), 4u);
  more.input = dir / "c.h5";
  more.split = "test";
  EXPECT_THROW(pack(more), Error) << "a class the data set does not have";
}

TEST(Hdf5Source, WhatIsNotAcceptedSaysWhy) {
  const test::TempDir dir;
  const auto error = [&](const std::function<void(const H5File&)>& fill) {
    { fill(H5File(dir / "in.h5")); }
    try {
      pack(options_of(dir / "in.h5", dir / "set"));
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kData);
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  using testing::HasSubstr;
  const std::vector<float> floats(4 * 8 * 8 * 3);
  EXPECT_THAT(error([](const H5File&) {}), HasSubstr("no array named images"));
  EXPECT_THAT(error([&](const H5File& h) {
                h.put("images", H5T_NATIVE_FLOAT, {4, 8, 8, 3}, floats.data());
                h.put_numbers("labels", {0, 1, 2, 3});
              }),
              HasSubstr("neither"));
  EXPECT_THAT(error([&](const H5File& h) { h.put_files("images", jpegs(3)); }),
              HasSubstr("no array named labels"));
  EXPECT_THAT(error([&](const H5File& h) {
                h.put_files("images", jpegs(3));
                h.put_numbers("labels", {0, 1});
              }),
              HasSubstr("2 labels for 3 images"));
  EXPECT_THAT(error([&](const H5File& h) {
                h.put_files("images", jpegs(3));
                h.put_numbers("labels", {0, -1, 0});
              }),
              HasSubstr("out of range"));
  std::ofstream(dir / "in.h5", std::ios::binary) << "\x89HDF\r\n\x1a\n broken";
  EXPECT_THROW(pack(options_of(dir / "in.h5", dir / "set")), Error);
}

}  // namespace
}  // namespace nf::data

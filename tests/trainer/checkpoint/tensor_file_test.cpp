// The safetensors reader and writer: exact bytes, a second parser, golden weights, and thousands of
// damaged files.
#include "trainer/checkpoint/tensor_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/rng.h"
#include "tests/support/golden_values.h"

namespace nf::train {
namespace {

using ::testing::HasSubstr;
using Shape = std::vector<int64_t>;

template <class T>
TensorBytes tensor(const std::string& name, Dtype dtype, const Shape& shape,
                   const std::vector<T>& values) {
  return {name, dtype, shape, std::as_bytes(std::span(values))};
}

// All tensors by name, through the reader under test.
struct ReadBack {
  std::map<std::string, std::vector<std::byte>> data;
  TensorFileContents contents;
};
ReadBack read_back(const std::filesystem::path& file) {
  ReadBack out;
  out.contents = read_tensor_file(file, [&](const TensorInfo& info) {
    auto& bytes = out.data[info.name];
    bytes.resize(info.end - info.begin);
    return std::span(bytes);
  });
  return out;
}

std::string with_length(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

// The message with which a file is refused, or "accepted".
std::string refusal(const std::filesystem::path& file, const std::string& bytes) {
  write_file_atomic(file, bytes);
  try {
    read_back(file);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kWeights);
    EXPECT_EQ(e.where(), file.string());
    EXPECT_FALSE(e.hint().empty());
    return e.what();
  }
  return "accepted";
}

class TensorFile : public ::testing::Test {
 protected:
  void write_sample(const std::filesystem::path& file) {
    digest_ = write_tensor_file(
        file,
        {tensor("b", Dtype::kF32, {2, 3}, floats_), tensor("bytes", Dtype::kU8, {3}, bytes_),
         tensor("a", Dtype::kF32, {}, scalar_),
         tensor("empty", Dtype::kF32, {0, 4}, std::vector<float>{}),
         tensor("wide", Dtype::kF64, {1}, wide_)},
        {{"model", "nano \"x\""}, {"classes", "10"}});
  }
  test::TempDir dir_;
  std::vector<float> floats_ = {1, 2, 3, 4, 5, 6};
  std::vector<float> scalar_ = {0.5f};
  std::vector<uint8_t> bytes_ = {7, 8, 9};
  std::vector<double> wide_ = {-1.25};
  FileDigest digest_;
};

TEST_F(TensorFile, WritesExactlyTheseBytes) {
  write_sample(dir_ / "f");
  const std::string expected_header =
      R"({"__metadata__":{"classes":"10","model":"nano \"x\""},)"
      R"("wide":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"F32","shape":[],"data_offsets":[8,12]},)"
      R"("b":{"dtype":"F32","shape":[2,3],"data_offsets":[12,36]},)"
      R"("empty":{"dtype":"F32","shape":[0,4],"data_offsets":[36,36]},)"
      R"("bytes":{"dtype":"U8","shape":[3],"data_offsets":[36,39]}})";
  const std::string bytes = read_file(dir_ / "f");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ(length % 8, 0u);
  const std::string header = bytes.substr(8, length);
  EXPECT_EQ(header.substr(0, expected_header.size()), expected_header);
  EXPECT_EQ(header.find_first_not_of(' ', expected_header.size()), std::string::npos);
  EXPECT_EQ(bytes.size(), 8 + length + 39);
  float third = 0;
  std::memcpy(&third, bytes.data() + 8 + length + 12 + 8, 4);
  EXPECT_EQ(third, 3.0f);
}

TEST_F(TensorFile, BytesDoNotDependOnTheOrderGiven) {
  write_tensor_file(
      dir_ / "1",
      {tensor("b", Dtype::kF32, {2, 3}, floats_), tensor("a", Dtype::kF32, {1}, scalar_)}, {});
  write_tensor_file(
      dir_ / "2",
      {tensor("a", Dtype::kF32, {1}, scalar_), tensor("b", Dtype::kF32, {2, 3}, floats_)}, {});
  EXPECT_EQ(read_file(dir_ / "1"), read_file(dir_ / "2"));
}

TEST_F(TensorFile, ReadsBackWhatWasWritten) {
  write_sample(dir_ / "f");
  const ReadBack read = read_back(dir_ / "f");
  const TensorFileInfo& info = read.contents.info;
  ASSERT_EQ(info.tensors.size(), 5u);
  EXPECT_EQ(info.metadata, (Metadata{{"classes", "10"}, {"model", "nano \"x\""}}));
  ASSERT_NE(info.find("b"), nullptr);
  EXPECT_EQ(info.find("b")->shape, (Shape{2, 3}));
  EXPECT_EQ(info.find("a")->shape, Shape{});
  EXPECT_EQ(info.find("bytes")->dtype, Dtype::kU8);
  EXPECT_EQ(info.find("c"), nullptr);
  EXPECT_EQ(0, std::memcmp(read.data.at("b").data(), floats_.data(), 24));
  EXPECT_EQ(0, std::memcmp(read.data.at("wide").data(), wide_.data(), 8));
  EXPECT_EQ(read.contents.digest, digest_);
  EXPECT_EQ(digest_.xxh3, xxh3_64_file(dir_ / "f"));
  EXPECT_EQ(digest_.bytes, std::filesystem::file_size(dir_ / "f"));
  EXPECT_EQ(read_tensor_header(dir_ / "f").tensors.size(), 5u);
}

TEST_F(TensorFile, HoldsNoTensorsAtAll) {
  write_tensor_file(dir_ / "f", {}, {});
  EXPECT_TRUE(read_back(dir_ / "f").contents.info.tensors.empty());
}

TEST_F(TensorFile, LargeTensorsPassInPieces) {
  std::vector<float> large((size_t{9} << 20) / 4 + 1);
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<float>(i);
  const auto digest = write_tensor_file(
      dir_ / "f", {tensor("large", Dtype::kF32, {static_cast<int64_t>(large.size())}, large)}, {});
  const ReadBack read = read_back(dir_ / "f");
  EXPECT_EQ(0, std::memcmp(read.data.at("large").data(), large.data(), large.size() * 4));
  EXPECT_EQ(read.contents.digest, digest);
}

TEST_F(TensorFile, ProgrammingErrorsAreChecked) {
  const auto b = tensor("b", Dtype::kF32, {2, 3}, floats_);
  EXPECT_THROW(write_tensor_file(dir_ / "f", {b, b}, {}), std::logic_error);
  EXPECT_THROW(write_tensor_file(dir_ / "f", {tensor("b", Dtype::kF32, {7}, floats_)}, {}),
               std::logic_error);
  EXPECT_THROW(write_tensor_file(dir_ / "f", {tensor("b", Dtype::kF32, {-1}, floats_)}, {}),
               std::logic_error);
}

// Written by another program: 131 float64 tensors whose values are known by formula.
TEST_F(TensorFile, ReadsGoldenWeights) {
  const ReadBack read = read_back(test::golden("nfnet/tiny_init_f64.safetensors"));
  EXPECT_EQ(read.contents.info.tensors.size(), 131u);
  size_t elements = 0;
  for (const TensorInfo& t : read.contents.info.tensors) {
    EXPECT_EQ(t.dtype, Dtype::kF64);
    const std::vector<double> expected = test::golden_parameter(t.name, t.shape);
    const auto& bytes = read.data.at(t.name);
    ASSERT_EQ(bytes.size(), expected.size() * 8) << t.name;
    std::vector<double> values(expected.size());
    std::memcpy(values.data(), bytes.data(), bytes.size());
    for (size_t i = 0; i < values.size(); ++i)
      ASSERT_TRUE(test::golden_near(values[i], expected[i], 1e-14, 1e-15)) << t.name << " " << i;
    elements += values.size();
  }
  EXPECT_EQ(elements, 146'954u);
}

TEST_F(TensorFile, RefusesWhatIsNotAFile) {
  EXPECT_THROW(read_tensor_header(dir_ / "absent"), Error);
  EXPECT_THROW(read_tensor_header(dir_.path()), Error);
}

TEST_F(TensorFile, SaysWhatIsWrong) {
  const auto file = dir_ / "f";
  const auto says = [&](const std::string& header, const std::string& data, const char* text) {
    EXPECT_THAT(refusal(file, with_length(header, data)), HasSubstr(text)) << header;
  };
  EXPECT_THAT(refusal(file, "1234567"), HasSubstr("only 7 bytes"));
  EXPECT_THAT(refusal(file, std::string(16, '\xFF')), HasSubstr("header of"));
  EXPECT_THAT(refusal(file, std::string("\x09\0\0\0\0\0\0\0{}", 10)),
              HasSubstr("header of 9 bytes"));
  says("", "", "not a JSON object");
  says("[]", "", "not a JSON object");
  says("{\"a\":", "", "not valid JSON");
  says("{} x", "", "not valid JSON");
  says("{\"a\":1}", "", "needs exactly");
  says(R"({"a":{"dtype":"F32","shape":[1]}})", "1234", "needs exactly");
  says(R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", "1234", "unknown dtype 'F33'");
  says(R"({"a":{"dtype":4,"shape":[1],"data_offsets":[0,4]}})", "1234", "dtype is not a string");
  says(R"({"a":{"dtype":"F32","shape":4,"data_offsets":[0,4]}})", "1234", "shape is not a list");
  says(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234", "non-negative");
  says(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", "1234", "non-negative");
  says(R"({"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}})", "1234", "not valid JSON");
  says(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "1234",
       "do not fit its 4 bytes");
  says(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", "1234",
       "do not fit its 4 bytes");
  says(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "1234", "not a pair");
  says(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "1234", "outside the file");
  says(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "1234", "outside the file");
  says(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})", "12345", "a gap before");
  says(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "12345", "end after 4 bytes");
  says(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
       "123456", "overlaps");
  says(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
       R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "12345678", "'a' twice");
  says(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234", "twice");
  says(R"({"__metadata__":{"a":1}})", "", "not a string");
  says(R"({"__metadata__":[]})", "", "not an object");
  says("{\"a\":" + std::string(100'000, '['), "", "nested too deeply");
}

// Every flip of the header and every truncation is refused or visible in the digest; nothing
// crashes.
TEST_F(TensorFile, FindsEveryFlipAndTruncation) {
  write_sample(dir_ / "f");
  const std::string good = read_file(dir_ / "f");
  PositionRng rng(1, Stream::kTest, 0);
  int refused = 0, other_digest = 0;
  const auto try_bytes = [&](const std::string& bytes) {
    write_file_atomic(dir_ / "g", bytes);
    try {
      EXPECT_NE(read_back(dir_ / "g").contents.digest, digest_);
      ++other_digest;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kWeights);
      ++refused;
    }
  };
  for (size_t at = 0; at < good.size(); ++at) {
    std::string flipped = good;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << rng.below(8)));
    try_bytes(flipped);
  }
  for (size_t length = 0; length < good.size(); length += 3) try_bytes(good.substr(0, length));
  for (int i = 0; i < 300; ++i) {  // many bytes at once
    std::string mangled = good;
    for (uint64_t k = rng.below(20) + 1; k > 0; --k)
      mangled[rng.below(mangled.size())] = static_cast<char>(rng.below(256));
    if (mangled != good) try_bytes(mangled);
  }
  EXPECT_GT(refused, 400);
  EXPECT_GT(other_digest, 39);  // at least every byte of the tensors
}

}  // namespace
}  // namespace nf::train

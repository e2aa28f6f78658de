// The check of a JPEG's markers alone: sound files of every kind pass, and whatever damages the
// structure (any truncation, tables, frames, scans, restarts) is refused.
#include "data_pipeline/jpeg_markers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "data_pipeline/jpeg_transcode.h"
#include "tests/data_pipeline/store_fixtures.h"

namespace nf::data {
namespace {

using test::ByteVector;
using test::JpegKind;
using testing::HasSubstr;

std::string verdict(const ByteVector& bytes, const DecodeLimits& limits = {}) {
  return check_jpeg_markers(bytes, limits).reason;
}

// Where the marker stands, by way of the segments before it.
size_t find_marker(const ByteVector& jpeg, uint8_t marker) {
  for (size_t at = 2; at + 4 <= jpeg.size();) {
    if (jpeg[at + 1] == marker) return at;
    at += 2 + static_cast<size_t>(jpeg[at + 2] << 8 | jpeg[at + 3]);
  }
  ADD_FAILURE() << "no marker " << int{marker};
  return 0;
}

ByteVector with(ByteVector bytes, size_t at, std::initializer_list<uint8_t> values) {
  std::copy(values.begin(), values.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
  return bytes;
}

ByteVector without_segment(ByteVector bytes, uint8_t marker) {
  const size_t at = find_marker(bytes, marker);
  const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  bytes.erase(begin, begin + 2 + (bytes[at + 2] << 8 | bytes[at + 3]));
  return bytes;
}

const Image& picture() {
  static const Image drawn = test::draw_picture(61, 47, 3);
  return drawn;
}

// With restart markers, as nf-pack stores it.
ByteVector with_restarts() {
  ByteVector stored;
  const ByteVector jpeg = test::draw_jpeg(300, 200, 4);
  TranscodeOptions options;
  options.max_growth_permille = 500;
  EXPECT_TRUE(transcode_jpeg(jpeg, options, stored));
  return stored;
}

TEST(JpegMarkers, SoundFilesOfEveryKind) {
  for (const JpegKind kind :
       {JpegKind::kRgb444, JpegKind::kGray, JpegKind::kProgressive, JpegKind::kGrayProgressive,
        JpegKind::kArithmetic, JpegKind::kCmykAdobe, JpegKind::kCmykBare, JpegKind::kYcck})
    EXPECT_EQ(verdict(test::make_jpeg(picture(), kind)), "") << static_cast<int>(kind);
  EXPECT_EQ(verdict(with_restarts()), "");
  EXPECT_EQ(verdict(test::with_exif(test::draw_jpeg(9, 7, 1), test::exif_block(6, true))), "");
  ByteVector filled = test::draw_jpeg(9, 7, 1);
  filled.insert(filled.begin() + 2, {0xFF, 0xFF});
  filled.insert(filled.end() - 2, 0xFF);
  EXPECT_EQ(verdict(filled), "") << "fill bytes before markers";
}

TEST(JpegMarkers, EveryTruncationIsRefused) {
  for (const JpegKind kind : {JpegKind::kRgb444, JpegKind::kProgressive}) {
    const ByteVector jpeg = test::make_jpeg(picture(), kind);
    for (size_t size = 0; size < jpeg.size(); ++size)
      EXPECT_NE(verdict({jpeg.begin(), jpeg.begin() + static_cast<std::ptrdiff_t>(size)}), "")
          << size;
  }
}

TEST(JpegMarkers, WhatFollowsTheEndDoesNotMatter) {
  ByteVector twice = test::draw_jpeg(61, 47, 3), zeros = twice;
  zeros.push_back(0);
  EXPECT_EQ(verdict(zeros), "");
  twice.insert(twice.end(), zeros.begin(), zeros.end());
  EXPECT_EQ(verdict(twice), "");
}

TEST(JpegMarkers, TablesFramesAndScans) {
  const ByteVector jpeg = test::draw_jpeg(61, 47, 3);
  const size_t huffman = find_marker(jpeg, 0xC4), quant = find_marker(jpeg, 0xDB),
               frame = find_marker(jpeg, 0xC0), scan = find_marker(jpeg, 0xDA);
  EXPECT_THAT(verdict(with(jpeg, huffman + 4, {0x24})), HasSubstr("bogus Huffman table"));
  EXPECT_THAT(verdict(with(jpeg, huffman + 5, {2})), HasSubstr("Huffman table")) << "all ones";
  EXPECT_THAT(verdict(with(jpeg, huffman + 2, {0, 12})), HasSubstr("Huffman table"));
  EXPECT_THAT(verdict(with(jpeg, quant + 4, {0x07})), HasSubstr("bogus quantization table"));
  EXPECT_THAT(verdict(without_segment(jpeg, 0xDB)), HasSubstr("was not defined"));
  EXPECT_THAT(verdict(without_segment(jpeg, 0xC0)), HasSubstr("bogus scan"));
  EXPECT_THAT(verdict(without_segment(jpeg, 0xDA)), HasSubstr("belong to none"));
  EXPECT_EQ(verdict(without_segment(jpeg, 0xC4)), "") << "the standard's tables, as in motion JPEG";
  EXPECT_THAT(verdict(with(jpeg, scan + 6, {0x33})), HasSubstr("missing Huffman table"));
  EXPECT_THAT(verdict(with(jpeg, scan + 5, {0x77})), HasSubstr("component that is not there"));
  EXPECT_THAT(verdict(with(jpeg, scan + 12, {62})), HasSubstr("bogus range"));
  EXPECT_THAT(verdict(with(jpeg, frame + 9, {5})), HasSubstr("bogus frame"));
  EXPECT_THAT(verdict(with(jpeg, frame + 1, {0x01})), HasSubstr("0x01 where none may stand"));
  EXPECT_THAT(verdict(with(jpeg, frame + 2, {0, 1})), HasSubstr("bogus marker length"));
  EXPECT_THAT(verdict(with(jpeg, frame + 2, {0xFF, 0xFF})), HasSubstr("inside a marker segment"));
  ByteVector two_frames = jpeg;
  two_frames.insert(two_frames.begin() + static_cast<std::ptrdiff_t>(frame),
                    jpeg.begin() + static_cast<std::ptrdiff_t>(frame),
                    jpeg.begin() + static_cast<std::ptrdiff_t>(frame) + 19);
  EXPECT_THAT(verdict(two_frames), HasSubstr("second frame"));
  EXPECT_THAT(verdict(test::make_jpeg(picture(), JpegKind::kProgressive), {.max_scans = 2}),
              HasSubstr("more scans"));
  EXPECT_THAT(verdict({0xFF, 0xD8, 0xFF, 0xD9}), HasSubstr("before any image data"));
}

TEST(JpegMarkers, RestartsComeInTurn) {
  const ByteVector jpeg = with_restarts();
  const uint8_t third[] = {0xFF, 0xD2};
  const auto at = static_cast<size_t>(
      std::search(jpeg.begin() + static_cast<std::ptrdiff_t>(find_marker(jpeg, 0xDA)), jpeg.end(),
                  third, third + 2) -
      jpeg.begin());
  ASSERT_LT(at, jpeg.size());
  EXPECT_THAT(verdict(with(jpeg, at + 1, {0xD3})), HasSubstr("where none may stand"));
  EXPECT_THAT(verdict(without_segment(jpeg, 0xDD)), HasSubstr("where none may stand"));
}

}  // namespace
}  // namespace nf::data

// Transcoding: what it keeps, what it refuses, that its index is right and that damage to it is
// noticed; and the quick proof that a file is sound never says more than libjpeg-turbo would.
#include "data_pipeline/jpeg_transcode.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "data_pipeline/huffman_code.h"
#include "data_pipeline/jpeg.h"
#include "data_pipeline/jpeg_layout.h"
#include "data_pipeline/jpeg_region.h"
#include "data_pipeline/jpeg_scan.h"
#include "tests/data_pipeline/jpeg_cases.h"

namespace nf::data {
namespace {

using test::ByteVector;
using test::JpegCase;
using test::JpegKind;

Image decoded(const ByteVector& bytes) {
  Image image;
  EXPECT_EQ(decode_image(bytes, image).reason, "");
  return image;
}

JpegCase wide_case() {
  JpegCase c;
  c.width = 420;
  c.height = 300;
  c.h[0] = c.v[0] = 2;
  return c;
}

// Progressive files are denser than sequential ones: the usual limit keeps many of them.
TranscodeOptions roomy() {
  TranscodeOptions options;
  options.max_growth_permille = 1000;
  return options;
}

TEST(Transcode, StoresSegmentsWithARightIndex) {
  const ByteVector original = draw_jpeg_case(wide_case());
  ByteVector stored, again;
  ASSERT_TRUE(transcode_jpeg(original, {}, stored));
  EXPECT_LE(stored.size(), original.size() + original.size() * 15 / 1000);
  JpegLayout layout;
  ASSERT_TRUE(read_jpeg_layout(stored, layout));
  EXPECT_GT(layout.restart_interval, 0);
  EXPECT_EQ(layout.segment_index.size() / 2,
            static_cast<size_t>((27 * 19 + layout.restart_interval - 1) / layout.restart_interval));
  JpegScan scan;
  ASSERT_TRUE(scan.open(stored, layout));
  EXPECT_TRUE(scan.index_is_right());
  EXPECT_TRUE(is_sound_plain_jpeg(stored));
  EXPECT_EQ(decoded(stored).rgb, decoded(original).rgb);
  ASSERT_TRUE(transcode_jpeg(original, {}, again));
  EXPECT_EQ(again, stored);
  ASSERT_TRUE(transcode_jpeg(stored, {}, again));  // of itself: the same segments
  EXPECT_EQ(again, stored);
}

TEST(Transcode, OrientationStaysAndOtherMetadataGo) {
  const ByteVector plain = draw_jpeg_case(wide_case());
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const ByteVector original =
        test::with_exif(plain, test::exif_block(orientation, orientation % 2 == 0));
    ByteVector stored;
    ASSERT_TRUE(transcode_jpeg(original, {}, stored));
    const Image a = decoded(original), b = decoded(stored);
    EXPECT_EQ(a.width, b.width);
    EXPECT_EQ(a.rgb, b.rgb) << orientation;
    JpegLayout layout;
    ASSERT_TRUE(read_jpeg_layout(stored, layout));
    EXPECT_EQ(layout.orientation, orientation);
  }
}

TEST(Transcode, KindsThatStayAsTheyAre) {
  const Image picture = test::draw_picture(200, 150, 3);
  ByteVector stored;
  for (const auto kind :
       {JpegKind::kArithmetic, JpegKind::kCmykAdobe, JpegKind::kCmykBare, JpegKind::kYcck}) {
    EXPECT_FALSE(transcode_jpeg(test::make_jpeg(picture, kind), {}, stored));
  }
  for (const auto kind :
       {JpegKind::kRgb444, JpegKind::kGray, JpegKind::kProgressive, JpegKind::kGrayProgressive}) {
    const ByteVector original = test::make_jpeg(picture, kind);
    ASSERT_TRUE(transcode_jpeg(original, roomy(), stored));
    EXPECT_EQ(decoded(stored).rgb, decoded(original).rgb);
  }
  EXPECT_FALSE(transcode_jpeg({}, {}, stored));
  EXPECT_FALSE(transcode_jpeg(ByteVector{1, 2, 3}, {}, stored));
  TranscodeOptions no_room;  // without room for markers and index there are none
  no_room.max_growth_permille = -500;
  ASSERT_TRUE(transcode_jpeg(draw_jpeg_case(wide_case()), no_room, stored));
  JpegLayout layout;
  ASSERT_TRUE(read_jpeg_layout(stored, layout));
  EXPECT_EQ(layout.restart_interval, 0);
  EXPECT_TRUE(layout.segment_index.empty());
}

// Cut behind its first scans a progressive file is whole for libjpeg, which then smooths the blocks
// it knows little of: another picture than the coefficients give.
TEST(Transcode, ProgressiveFilesWithoutAllScansStay) {
  JpegCase c = wide_case();
  c.progressive = true;
  ByteVector file = draw_jpeg_case(c), stored;
  std::vector<size_t> scans;
  for (size_t at = 0; at + 1 < file.size(); ++at) {
    if (file[at] == 0xFF && file[at + 1] == 0xDA) scans.push_back(at);
  }
  ASSERT_GT(scans.size(), 4U);
  ASSERT_TRUE(transcode_jpeg(file, roomy(), stored));
  // Tables of the next scan may stand before it: they do no harm.
  for (size_t n = 1; n + 1 < scans.size(); ++n) {
    ByteVector cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(scans[n]));
    cut.insert(cut.end(), {0xFF, 0xD9});
    Image image;
    ASSERT_EQ(decode_image(cut, image).reason, "") << n;
    EXPECT_FALSE(transcode_jpeg(cut, roomy(), stored)) << n;
  }
}

TEST(Transcode, EveryFlippedBitOfTheIndexIsNoticed) {
  ByteVector stored;
  ASSERT_TRUE(transcode_jpeg(draw_jpeg_case(wide_case()), {}, stored));
  const Image whole = decoded(stored);
  const auto name =
      std::search(stored.begin(), stored.end(), kSegmentIndexName.begin(), kSegmentIndexName.end());
  const auto begin = static_cast<size_t>(name - stored.begin()) + kSegmentIndexName.size();
  JpegLayout layout;
  ASSERT_TRUE(read_jpeg_layout(stored, layout));
  RegionDecoder decoder;
  for (size_t bit = 0; bit < 8 * layout.segment_index.size(); bit += 3) {
    ByteVector damaged = stored;
    damaged[begin + bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    ASSERT_EQ(decoder.open(damaged).reason, "");
    const Box box{100, 100, 200, 90};
    PixelView view;
    ASSERT_EQ(decoder.decode(box, view).reason, "");  // found by the markers instead
    for (int64_t y = box.y; y < box.y + box.height; ++y) {
      ASSERT_TRUE(std::equal(view.at(box.x, y), view.at(box.x, y) + 3 * box.width,
                             whole.rgb.data() + (y * whole.width + box.x) * 3))
          << bit;
    }
  }
}

// Whatever the quick check calls sound, libjpeg-turbo decodes without a warning; what a region
// decoder gives of a damaged file is what the whole would give, or a fault.
TEST(Transcode, SoundnessIsNeverGuessed) {
  uint64_t state = 5;
  const auto draw = [&](size_t n) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<size_t>(state >> 33) % n;
  };
  int sound = 0, refused = 0, transcoded = 0;
  for (uint64_t index = 0; index < 6000; ++index) {
    const ByteVector original = draw_jpeg_case(test::choose_case(index % 200, 60));
    ByteVector damaged = original, stored;
    for (size_t k = 0; k <= draw(3); ++k) {
      switch (draw(4)) {
        case 0:
          damaged[draw(damaged.size())] ^= static_cast<uint8_t>(1 << draw(8));
          break;
        case 1:
          damaged[draw(damaged.size())] = static_cast<uint8_t>(draw(256));
          break;
        case 2:
          damaged.erase(damaged.begin() + static_cast<std::ptrdiff_t>(draw(damaged.size())));
          break;
        default:
          damaged.insert(damaged.begin() + static_cast<std::ptrdiff_t>(draw(damaged.size())),
                         static_cast<uint8_t>(draw(3) * 127 + draw(2)));
      }
    }
    Image image, again;
    DecodeLimits limits;
    limits.max_pixels = 1 << 20;
    const bool good = decode_image(damaged, image, limits).ok();
    int width = 0, height = 0;
    if (is_sound_plain_jpeg(damaged) && probe_jpeg(damaged, width, height, limits).ok()) {
      ++sound;
      EXPECT_TRUE(good) << index;
    }
    refused += !good;
    if (good && transcode_jpeg(damaged, {}, stored)) {
      ++transcoded;
      ASSERT_EQ(decode_image(stored, again).reason, "") << index;
      EXPECT_EQ(again.rgb, image.rgb) << index;
    }
  }
  EXPECT_GT(sound, 500);
  EXPECT_GT(refused, 500);
  EXPECT_GT(transcoded, 500);
}

TEST(HuffmanCode, LengthsAreLimitedAndComplete) {
  std::vector<SymbolCounts> cases(4, SymbolCounts{});
  cases[0][7] = 5;  // one symbol
  for (size_t s = 0; s < 256; ++s) cases[1][s] = 1;
  uint32_t a = 1, b = 1;
  for (size_t s = 0; s < 40; ++s) {  // Fibonacci numbers: the deepest tree there is
    cases[2][s] = a;
    a = std::exchange(b, a + b);
  }
  for (size_t s = 0; s < 162; ++s) cases[3][s] = static_cast<uint32_t>(1 + s * s * s);
  for (const auto& counts : cases) {
    for (const int limit : {9, 11, 16}) {
      const HuffmanSpec spec = best_huffman_table(counts, limit);
      const HuffmanCodes codes = huffman_codes(spec);
      double kraft = 0;
      for (size_t s = 0; s < 256; ++s) {
        EXPECT_EQ(codes.length[s] != 0, counts[s] != 0);
        if (codes.length[s] == 0) continue;
        EXPECT_LE(codes.length[s], limit);
        EXPECT_NE(codes.code[s], (1 << codes.length[s]) - 1) << "all ones";
        kraft += 1.0 / (1 << codes.length[s]);
        for (size_t t = 0; t < 256; ++t) {
          if (counts[t] > counts[s]) {
            EXPECT_LE(codes.length[t], codes.length[s]);
          }
        }
      }
      EXPECT_LT(kraft, 1.0);
    }
  }
}

}  // namespace
}  // namespace nf::data

// Decoding: the right pixels for every kind that is accepted, a reason for everything else, no
// allocation on a header's word.
#include "data_pipeline/decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>

#include "data_pipeline/exif.h"
#include "data_pipeline/image_header.h"
#include "data_pipeline/jpeg.h"
#include "data_pipeline/resize_area.h"
#include "tests/data_pipeline/store_fixtures.h"

namespace nf::data {
namespace {

using test::ByteVector;
using test::JpegKind;
using testing::HasSubstr;

Image decoded(const ByteVector& bytes) {
  Image image;
  const SampleFault fault = decode_image(bytes, image);
  EXPECT_EQ(fault.reason, "");
  return image;
}

std::string reason(const ByteVector& bytes, const DecodeLimits& limits = {}) {
  Image image;
  std::string text = decode_image(bytes, image, limits).reason;
  int width = 0, height = 0;
  EXPECT_EQ(check_image(bytes, width, height, limits).reason, text);  // the packer's check agrees
  return text;
}

double mean_difference(const Image& a, const Image& b) {
  EXPECT_EQ(a.rgb.size(), b.rgb.size());
  double sum = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) sum += std::abs(int{a.rgb[i]} - int{b.rgb[i]});
  return sum / static_cast<double>(a.rgb.size());
}

ByteVector encoded_by_opencv(const std::string& extension, const cv::Mat& mat) {
  ByteVector bytes;
  EXPECT_TRUE(cv::imencode(extension, mat, bytes));
  return bytes;
}

cv::Mat as_bgr(const Image& image) {
  cv::Mat mat(image.height, image.width, CV_8UC3);
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      const uint8_t* p = image.rgb.data() + 3 * (y * image.width + x);
      mat.at<cv::Vec3b>(y, x) = {p[2], p[1], p[0]};
    }
  }
  return mat;
}

TEST(Decode, JpegEqualsOpenCvBitForBit) {
  for (const auto& bytes : {test::draw_jpeg(53, 37, 1),
                            test::make_jpeg(test::draw_picture(40, 31, 2), JpegKind::kRgb444),
                            test::make_jpeg(test::draw_picture(40, 31, 3), JpegKind::kProgressive),
                            test::make_jpeg(test::draw_picture(40, 31, 4), JpegKind::kGray)}) {
    const Image image = decoded(bytes);
    const cv::Mat reference = cv::imdecode(bytes, cv::IMREAD_COLOR);
    const cv::Mat ours = as_bgr(image);
    EXPECT_EQ(cv::norm(ours, reference, cv::NORM_INF), 0);
  }
}

TEST(Decode, EveryJpegKindGivesThePicture) {
  const Image picture = test::draw_picture(48, 33, 7);
  for (const auto kind : {JpegKind::kRgb444, JpegKind::kProgressive, JpegKind::kArithmetic,
                          JpegKind::kCmykAdobe, JpegKind::kCmykBare, JpegKind::kYcck}) {
    const Image image = decoded(test::make_jpeg(picture, kind));
    ASSERT_EQ(image.width, 48);
    ASSERT_EQ(image.height, 33);
    EXPECT_LT(mean_difference(image, picture), 4) << static_cast<int>(kind);
  }
  const Image gray = decoded(test::make_jpeg(picture, JpegKind::kGrayProgressive));
  for (size_t i = 0; i < gray.rgb.size(); i += 3) {
    ASSERT_EQ(gray.rgb[i], gray.rgb[i + 1]);
    ASSERT_EQ(gray.rgb[i], gray.rgb[i + 2]);
  }
}

TEST(Decode, ExifOrientationsTurnTheImage) {
  const ByteVector jpeg = test::draw_jpeg(21, 13, 5);
  const Image stored = decoded(jpeg);
  const int w = stored.width, h = stored.height;
  for (int orientation = 0; orientation <= 9; ++orientation) {
    for (const bool big_endian : {false, true}) {
      const ByteVector bytes = test::with_exif(jpeg, test::exif_block(orientation, big_endian));
      const Image image = decoded(bytes);
      const bool swapped = orientation >= 5 && orientation <= 8;
      ASSERT_EQ(image.width, swapped ? h : w);
      ASSERT_EQ(image.height, swapped ? w : h);
      int width = 0, height = 0;
      ASSERT_TRUE(probe_image(bytes, width, height).ok());
      EXPECT_EQ(std::pair(width, height), std::pair(image.width, image.height));
      for (int y = 0; y < image.height; ++y) {
        for (int x = 0; x < image.width; ++x) {
          int sx = x, sy = y;
          switch (orientation) {  // EXIF 2.3: where the 0th row and column of the stored image lie
            case 2:
              sx = w - 1 - x;
              break;
            case 3:
              sx = w - 1 - x, sy = h - 1 - y;
              break;
            case 4:
              sy = h - 1 - y;
              break;
            case 5:
              sx = y, sy = x;
              break;
            case 6:
              sx = y, sy = h - 1 - x;
              break;
            case 7:
              sx = w - 1 - y, sy = h - 1 - x;
              break;
            case 8:
              sx = w - 1 - y, sy = x;
              break;
            default:
              break;
          }
          ASSERT_EQ(std::memcmp(image.rgb.data() + 3 * (y * image.width + x),
                                stored.rgb.data() + 3 * (sy * w + sx), 3),
                    0)
              << orientation << " at " << x << "," << y;
        }
      }
    }
  }
}

TEST(Decode, BrokenExifIsIgnored) {
  const ByteVector whole = test::exif_block(6, false), jpeg = test::draw_jpeg(9, 5, 1);
  for (size_t length = 1; length < whole.size(); ++length) {
    const ByteVector cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    const Image image = decoded(test::with_exif(jpeg, cut));
    EXPECT_EQ(image.width, length >= 22 ? 5 : 9) << length;  // the entry itself ends at byte 22
  }
  ByteVector far = whole;
  far[4] = far[5] = far[6] = far[7] = 0xFF;  // directory beyond the end
  EXPECT_EQ(exif_orientation(far), 1);
}

TEST(Decode, OtherFormatsAreExact) {
  const Image picture = test::draw_picture(31, 22, 9);
  const cv::Mat bgr = as_bgr(picture);
  for (const char* extension : {".png", ".bmp", ".tiff"}) {
    EXPECT_EQ(decoded(encoded_by_opencv(extension, bgr)).rgb, picture.rgb) << extension;
  }
  ByteVector webp;
  ASSERT_TRUE(cv::imencode(".webp", bgr, webp, {cv::IMWRITE_WEBP_QUALITY, 101}));  // lossless
  EXPECT_EQ(decoded(webp).rgb, picture.rgb);
}

TEST(Decode, SixteenBitsKeepTheUpperByteAndAlphaIsDropped) {
  const Image picture = test::draw_picture(20, 11, 4);
  cv::Mat wide(picture.height, picture.width, CV_16UC4),
      gray(picture.height, picture.width, CV_16UC1);
  std::vector<uint8_t> gray_expected;
  for (int y = 0; y < picture.height; ++y) {
    for (int x = 0; x < picture.width; ++x) {
      const uint8_t* p = picture.rgb.data() + 3 * (y * picture.width + x);
      const auto low = static_cast<uint16_t>(x * 13 + y);
      const auto widened = [&](uint8_t v) { return static_cast<uint16_t>(v << 8 | (low & 0xFF)); };
      wide.at<cv::Vec4w>(y, x) = {widened(p[2]), widened(p[1]), widened(p[0]), low};
      gray.at<uint16_t>(y, x) = widened(p[0]);
      gray_expected.insert(gray_expected.end(), 3, p[0]);
    }
  }
  EXPECT_EQ(decoded(encoded_by_opencv(".png", wide)).rgb, picture.rgb);
  EXPECT_EQ(decoded(encoded_by_opencv(".png", gray)).rgb, gray_expected);
  EXPECT_EQ(decoded(encoded_by_opencv(".tiff", gray)).rgb, gray_expected);
}

TEST(Decode, EveryTruncationIsRefused) {
  const Image picture = test::draw_picture(17, 12, 3);
  const cv::Mat bgr = as_bgr(picture);
  for (const auto& whole :
       {test::draw_jpeg(17, 12, 3), test::make_jpeg(picture, JpegKind::kProgressive),
        encoded_by_opencv(".png", bgr), encoded_by_opencv(".bmp", bgr)}) {
    for (size_t length = 0; length < whole.size(); ++length) {
      EXPECT_NE(
          reason(ByteVector(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length))),
          "")
          << length;
    }
    ByteVector longer = whole;
    longer.resize(longer.size() + 100, 0x55);
    EXPECT_EQ(reason(longer), "");  // bytes after the end are nobody's
  }
}

TEST(Decode, EveryFlippedBitOfAPngIsRefused) {
  const ByteVector whole = encoded_by_opencv(".png", as_bgr(test::draw_picture(5, 4, 3)));
  for (size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    ByteVector damaged = whole;
    damaged[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    EXPECT_NE(reason(damaged), "") << bit;
  }
}

TEST(Decode, DamagedFilesNeverCrash) {
  const Image picture = test::draw_picture(24, 17, 8);
  const cv::Mat bgr = as_bgr(picture);
  ByteVector webp;
  ASSERT_TRUE(cv::imencode(".webp", bgr, webp, {cv::IMWRITE_WEBP_QUALITY, 80}));
  uint64_t state = 1;
  int refused = 0;
  for (const auto& whole :
       {test::draw_jpeg(24, 17, 8), test::make_jpeg(picture, JpegKind::kProgressive), webp,
        encoded_by_opencv(".tiff", bgr), encoded_by_opencv(".bmp", bgr)}) {
    for (int round = 0; round < 300; ++round) {
      ByteVector damaged = whole;
      for (int k = 0; k < 3; ++k) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        damaged[(state >> 33) % damaged.size()] = static_cast<uint8_t>(state >> 25);
      }
      Image image;
      DecodeLimits limits;
      limits.max_pixels = 1 << 20;
      if (!decode_image(damaged, image, limits).ok()) {
        ++refused;
      } else {
        EXPECT_EQ(image.rgb.size(),
                  size_t{3} * static_cast<size_t>(image.width) * static_cast<size_t>(image.height));
      }
    }
  }
  EXPECT_GT(refused, 300);
}

TEST(Decode, AnnouncedSizesAreCheckedBeforeMemoryIsTaken) {
  ByteVector jpeg = test::draw_jpeg(16, 16, 1);
  const ByteVector sof = {0xFF, 0xC0};
  const auto at = std::search(jpeg.begin(), jpeg.end(), sof.begin(), sof.end());
  ASSERT_NE(at, jpeg.end());
  const uint8_t size[] = {30000 >> 8, 30000 & 0xFF, 30000 >> 8, 30000 & 0xFF};
  std::copy(size, size + 4, at + 5);
  Image image;
  EXPECT_THAT(decode_image(jpeg, image).reason, HasSubstr("announces 30000x30000"));
  EXPECT_EQ(image.rgb.capacity(), 0U);

  DecodeLimits limits;
  limits.max_pixels = 99;
  const cv::Mat ten(10, 10, CV_8UC3, cv::Scalar(1, 2, 3));
  for (const char* extension : {".png", ".bmp", ".tiff", ".webp", ".jpg"}) {
    EXPECT_THAT(reason(encoded_by_opencv(extension, ten), limits), HasSubstr("announces 10x10"))
        << extension;
  }
}

TEST(Decode, MemoryAndScansAreLimited) {
  const ByteVector progressive =
      test::make_jpeg(test::draw_picture(64, 64, 1), JpegKind::kProgressive);
  DecodeLimits limits;
  limits.max_bytes = 3 * 64 * 64 + 1000;  // enough for the pixels, not for the coefficients
  EXPECT_THAT(reason(progressive, limits), HasSubstr("MiB to decode"));
  EXPECT_EQ(reason(test::make_jpeg(test::draw_picture(64, 64, 1), JpegKind::kRgb444), limits), "");
  limits = {};
  limits.max_scans = 3;
  EXPECT_THAT(reason(progressive, limits), HasSubstr("scans"));
}

TEST(Decode, UnknownBytesSayWhatTheyAre) {
  EXPECT_EQ(reason({}), "empty file");
  EXPECT_EQ(reason({'G', 'I', 'F', '8', '9', 'a'}), "GIF is not supported");
  EXPECT_THAT(reason({'<', 'h', 't', 'm', 'l'}), HasSubstr("3c 68 74 6d"));
}

TEST(ResizeArea, AveragesExactly) {
  Image in, out;
  in.width = 3;
  in.height = 2;
  for (const int v : {0, 30, 60, 90, 120, 150})
    in.rgb.insert(in.rgb.end(), 3, static_cast<uint8_t>(v));
  resize_area(in, 1, 1, out);
  EXPECT_EQ(out.rgb, (ByteVector{75, 75, 75}));
  resize_area(in, 2, 1, out);  // columns weigh 2/3, 1/3 | 1/3, 2/3
  EXPECT_EQ(out.rgb, (ByteVector{55, 55, 55, 95, 95, 95}));
  resize_area(in, 3, 2, out);
  EXPECT_EQ(out.rgb, in.rgb);
  int width = 500, height = 333;
  size_with_short_side(256, width, height);
  EXPECT_EQ(std::pair(width, height), std::pair(384, 256));
  size_with_short_side(300, width, height);
  EXPECT_EQ(std::pair(width, height), std::pair(384, 256));
}

}  // namespace
}  // namespace nf::data

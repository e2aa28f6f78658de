// Each RandAugment operation against a second implementation: OpenCV's own functions where they
// compute the same thing, plain loops in double precision where not. The draws: uniform, a function
// of (seed, position) alone. Frozen bits.
#include "data_pipeline/randaugment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <opencv2/imgproc.hpp>

#include "core/hash.h"
#include "core/rng.h"

namespace nf::data {
namespace {

using Op = RandAugmentOp;
using Pixels = std::vector<uint8_t>;

constexpr int kWidth = 61, kHeight = 47;

// Smooth with noise, not using the full range.
Pixels picture(uint64_t number = 1, int width = kWidth, int height = kHeight) {
  PositionRng rng(number, Stream::kTest, 0);
  Pixels rgb;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c)
        rgb.push_back(static_cast<uint8_t>(30 + 90 * (c + 1) / 3 * x / width + 60 * y / height +
                                           static_cast<int>(rng.below(40))));
  return rgb;
}

Pixels apply(Op op, double magnitude, Pixels rgb, bool negative = false, int64_t cx = 0,
             int64_t cy = 0, int width = kWidth, int height = kHeight) {
  std::vector<uint8_t> scratch;
  apply_rand_augment({op, negative, cx, cy}, magnitude, width, height, rgb.data(), scratch);
  return rgb;
}

cv::Mat mat(Pixels& rgb, int width = kWidth, int height = kHeight) {
  return {height, width, CV_8UC3, rgb.data()};
}
Pixels pixels(const cv::Mat& m) { return {m.datastart, m.dataend}; }

// How many values differ by more than `allowed`.
size_t differing(const Pixels& a, const Pixels& b, int allowed = 0) {
  EXPECT_EQ(a.size(), b.size());
  size_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) count += std::abs(a[i] - b[i]) > allowed;
  return count;
}

// f(value, channel) for each value.
template <class F>
Pixels mapped(Pixels rgb, const F& f) {
  for (size_t i = 0; i < rgb.size(); ++i) rgb[i] = static_cast<uint8_t>(f(rgb[i], i % 3));
  return rgb;
}

TEST(RandAugmentOps, AutoContrastStretchesEachChannel) {
  Pixels rgb = picture();
  std::vector<cv::Mat> channels;
  cv::split(mat(rgb), channels);
  const Pixels expected = mapped(rgb, [&](int v, size_t c) {
    double low = 0, high = 0;
    cv::minMaxLoc(channels[c], &low, &high);
    return std::floor((v - low) * 255 / (high - low) + 1e-9);
  });
  EXPECT_EQ(apply(Op::kAutoContrast, 10, rgb), expected);
  const Pixels flat(kWidth * kHeight * 3, 77);
  EXPECT_EQ(apply(Op::kAutoContrast, 10, flat), flat);
}

TEST(RandAugmentOps, EqualizeIsPillowsRule) {
  const Pixels rgb = picture(2);
  Pixels expected = rgb;
  for (size_t c = 0; c < 3; ++c) {
    std::map<int, long> count;  // only values that occur
    for (size_t i = c; i < rgb.size(); i += 3) ++count[rgb[i]];
    const long step = (kWidth * kHeight - count.rbegin()->second) / 255;
    for (size_t i = c; i < rgb.size(); i += 3) {
      long below = step / 2;
      for (const auto& [value, n] : count) below += value < rgb[i] ? n : 0;
      expected[i] = static_cast<uint8_t>(std::min(below / step, 255L));
    }
  }
  EXPECT_EQ(apply(Op::kEqualize, 10, rgb), expected);
  const Pixels flat(kWidth * kHeight * 3, 77);
  EXPECT_EQ(apply(Op::kEqualize, 10, flat), flat) << "a step of 0 leaves the channel";
}

TEST(RandAugmentOps, EqualizeIsCloseToOpenCv) {
  Pixels rgb = picture(3, 300, 300);
  const Pixels ours = apply(Op::kEqualize, 10, rgb, false, 0, 0, 300, 300);
  std::vector<cv::Mat> channels;
  cv::split(mat(rgb, 300, 300), channels);
  for (cv::Mat& channel : channels) cv::equalizeHist(channel, channel);
  cv::Mat merged;
  cv::merge(channels, merged);
  EXPECT_LT(differing(ours, pixels(merged), 4), ours.size() / 50) << "another rounding, one shape";
}

TEST(RandAugmentOps, PointOperationsByTheirFormulas) {
  const Pixels rgb = picture(4);
  EXPECT_EQ(apply(Op::kInvert, 3, rgb), mapped(rgb, [](int v, size_t) { return 255 - v; }));
  for (const double m : {0.0, 1.0, 2.5, 5.0, 7.0, 10.0, 20.0}) {
    SCOPED_TRACE(m);
    const int bits = std::min(static_cast<int>(4 * m / 10), 8);
    EXPECT_EQ(apply(Op::kPosterize, m, rgb), mapped(rgb, [&](int v, size_t) {
                const int unit = 1 << (8 - bits);
                return v / unit * unit;
              }));
    EXPECT_EQ(apply(Op::kSolarize, m, rgb), mapped(rgb, [&](int v, size_t) {
                return v < static_cast<int>(256 * m / 10) ? v : 255 - v;
              }));
    EXPECT_EQ(apply(Op::kSolarizeAdd, m, rgb), mapped(rgb, [&](int v, size_t) {
                return v < 128 ? std::min(255, v + static_cast<int>(110 * m / 10)) : v;
              }));
  }
}

// base + f (v - base) in double precision; off by one where a product lies on an integer, by two
// where the gray value was rounded the other way and f is large.
void expect_blend(Op op, const std::function<double(const Pixels&, size_t)>& base) {
  const Pixels rgb = picture(5);
  for (const double m : {0.0, 3.0, 5.0, 9.0, 10.0, 15.0}) {
    const double f = 0.1 + 1.8 * m / 10;
    Pixels expected = rgb;
    for (size_t i = 0; i < rgb.size(); ++i) {
      const double b = base(rgb, i);
      expected[i] = static_cast<uint8_t>(std::clamp(std::floor(b + f * (rgb[i] - b)), 0.0, 255.0));
    }
    const Pixels ours = apply(op, m, rgb);
    EXPECT_EQ(differing(ours, expected, 2), 0u) << "magnitude " << m;
    EXPECT_LT(differing(ours, expected), rgb.size() / 8) << "magnitude " << m;
  }
  EXPECT_EQ(apply(op, 5, rgb), rgb) << "a factor of 1 is the image itself";
}

TEST(RandAugmentOps, ColorBlendsWithOpenCvsGray) {
  expect_blend(Op::kColor, [](const Pixels& rgb, size_t i) {
    cv::Mat3b one(1, 1), gray3;
    const size_t p = i / 3 * 3;
    one(0, 0) = {rgb[p], rgb[p + 1], rgb[p + 2]};
    cv::Mat gray;
    cv::cvtColor(one, gray, cv::COLOR_RGB2GRAY);
    return static_cast<double>(gray.at<uint8_t>(0, 0));
  });
}

TEST(RandAugmentOps, ContrastBlendsWithTheMeanGray) {
  Pixels rgb = picture(5);
  cv::Mat gray;
  cv::cvtColor(mat(rgb), gray, cv::COLOR_RGB2GRAY);
  const double mean = std::floor(cv::mean(gray)[0] + 0.5);
  expect_blend(Op::kContrast, [mean](const Pixels&, size_t) { return mean; });
}

TEST(RandAugmentOps, BrightnessBlendsWithBlack) {
  expect_blend(Op::kBrightness, [](const Pixels&, size_t) { return 0.0; });
}

TEST(RandAugmentOps, SharpnessBlendsWithTheSmoothedImage) {
  Pixels rgb = picture(5);
  cv::Mat kernel = (cv::Mat_<double>(3, 3) << 1, 1, 1, 1, 5, 1, 1, 1, 1), smooth;
  cv::filter2D(mat(rgb), smooth, CV_64F, kernel);
  expect_blend(Op::kSharpness, [&](const Pixels& original, size_t i) -> double {
    const int x = static_cast<int>(i / 3) % kWidth, y = static_cast<int>(i / 3) / kWidth;
    if (x == 0 || y == 0 || x == kWidth - 1 || y == kHeight - 1) return original[i];
    return std::floor(smooth.at<cv::Vec3d>(y, x)[static_cast<int>(i % 3)] / 13 + 1e-9);
  });
}

// OpenCV's nearest-neighbour warp with the same map. It rounds coordinates to 1/1024 pixel, so
// pixels that fall within 1/50 of the middle between two neighbours are left out.
void expect_warp(Op op, double magnitude, bool negative, const cv::Matx23d& map) {
  Pixels rgb = picture(6);
  cv::Mat warped;
  cv::warpAffine(mat(rgb), warped, map, {kWidth, kHeight}, cv::INTER_NEAREST | cv::WARP_INVERSE_MAP,
                 cv::BORDER_CONSTANT, cv::Scalar(128, 128, 128));
  const Pixels ours = apply(op, magnitude, rgb, negative), expected = pixels(warped);
  size_t compared = 0;
  const auto near_middle = [](double v) { return std::abs(v - std::floor(v) - 0.5) < 0.02; };
  for (int y = 0; y < kHeight; ++y) {
    for (int x = 0; x < kWidth; ++x) {
      const cv::Vec2d at = map * cv::Vec3d(x, y, 1);
      if (near_middle(at[0]) || near_middle(at[1])) continue;
      ++compared;
      const auto i = static_cast<size_t>(y * kWidth + x) * 3;
      for (size_t c = 0; c < 3; ++c)
        ASSERT_EQ(ours[i + c], expected[i + c])
            << static_cast<int>(op) << " magnitude " << magnitude << " at " << x << ", " << y;
    }
  }
  EXPECT_GT(compared, static_cast<size_t>(kWidth * kHeight * 3 / 4));
  if (magnitude > 0) {
    EXPECT_GT(differing(ours, rgb), rgb.size() / 20);
  }
}

TEST(RandAugmentOps, GeometryEqualsOpenCvsWarp) {
  for (const double m : {0.0, 2.0, 5.0, 10.0, 17.0}) {
    for (const bool negative : {false, true}) {
      const double s = (negative ? -1 : 1) * m / 10;
      expect_warp(Op::kShearX, m, negative, {1, 0.3 * s, 0, 0, 1, 0});
      expect_warp(Op::kShearY, m, negative, {1, 0, 0, 0.3 * s, 1, 0});
      expect_warp(Op::kTranslateX, m, negative, {1, 0, 100 * s, 0, 1, 0});
      expect_warp(Op::kTranslateY, m, negative, {1, 0, 0, 0, 1, 100 * s});
      // OpenCV's own idea of a rotation about the centre; its angle runs the other way.
      const cv::Mat r =
          cv::getRotationMatrix2D({(kWidth - 1) / 2.0F, (kHeight - 1) / 2.0F}, -30 * s, 1);
      expect_warp(Op::kRotate, m, negative,
                  {r.at<double>(0, 0), r.at<double>(0, 1), r.at<double>(0, 2), r.at<double>(1, 0),
                   r.at<double>(1, 1), r.at<double>(1, 2)});
    }
  }
}

TEST(RandAugmentOps, CutoutFillsASquareCutAtTheBorders) {
  for (const auto& [cx, cy] : {std::pair{0, 0}, {30, 20}, {60, 46}, {2, 44}}) {
    for (const double m : {0.0, 1.0, 2.5, 10.0}) {
      Pixels expected = picture(7);
      const int half = static_cast<int>(40 * m / 10);
      const cv::Rect square(cx - half, cy - half, 2 * half, 2 * half);
      mat(expected)(square & cv::Rect(0, 0, kWidth, kHeight)).setTo(cv::Scalar(128, 128, 128));
      EXPECT_EQ(apply(Op::kCutout, m, picture(7), false, cx, cy), expected) << cx << " " << m;
    }
  }
}

TEST(RandAugmentOps, TinyImages) {
  for (int op = 0; op < kRandAugmentOps; ++op)
    for (const auto& [w, h] : {std::pair{1, 1}, {1, 5}, {2, 2}, {3, 1}})
      for (const double m : {0.0, 10.0, 30.0})
        EXPECT_EQ(apply(static_cast<Op>(op), m, picture(8, w, h), true, 0, 0, w, h).size(),
                  static_cast<size_t>(w * h * 3));
}

TEST(RandAugmentDraws, EveryOperationAndSignEquallyOften) {
  std::map<std::pair<Op, bool>, int> count;
  constexpr int kDraws = 64000;
  double x = 0;
  for (uint64_t p = 0; p < kDraws; ++p) {
    const RandAugmentDraw d = draw_rand_augment(100, 100, 5, p, 1);
    ++count[{d.op, d.negative}];
    x += static_cast<double>(d.centre_x) / kDraws;
    ASSERT_LT(d.centre_y, 100);
  }
  ASSERT_EQ(count.size(), 32u);
  double chi_squared = 0;
  for (const auto& [key, n] : count) chi_squared += (n - 2000.0) * (n - 2000.0) / 2000.0;
  EXPECT_LT((chi_squared - 31) / std::sqrt(62.0), 5);
  EXPECT_NEAR(x, 49.5, 1);
}

TEST(RandAugmentDraws, LayersPositionsAndSeedsAreIndependentAndRepeatable) {
  const auto run = [](uint64_t seed, uint64_t position, int64_t layers) {
    Pixels rgb = picture(9), scratch;
    rand_augment({.layers = layers, .magnitude = 3}, kWidth, kHeight, seed, position, rgb.data(),
                 scratch);
    return rgb;
  };
  EXPECT_EQ(run(1, 2, 4), run(1, 2, 4));
  EXPECT_EQ(run(1, 2, 0), picture(9));
  int same = 0;
  for (uint64_t k = 0; k < 50; ++k) {
    same += run(1, k, 4) == run(1, k + 1, 4);
    same += run(k, 7, 4) == run(k + 1, 7, 4);
  }
  EXPECT_LE(same, 2);
  int equal_ops = 0;  // of layers 0 and 1: one in 16
  for (uint64_t p = 0; p < 1600; ++p)
    equal_ops += draw_rand_augment(9, 9, 1, p, 0).op == draw_rand_augment(9, 9, 1, p, 1).op;
  EXPECT_NEAR(equal_ops, 100, 45);
}

// Runs are reproducible across versions only while these hold.
TEST(RandAugmentDraws, GoldenBits) {
  Sha256 sha;
  for (uint64_t position = 0; position < 64; ++position) {
    Pixels rgb = picture(10), scratch;
    rand_augment({.layers = 4, .magnitude = 10}, kWidth, kHeight, 3, position, rgb.data(), scratch);
    sha.update(std::as_bytes(std::span(rgb)));
  }
  EXPECT_EQ(sha.hex(), "e10dbb3a7a241d48e72e28e93bf8fae273c8b80ce4cb2ae0b3697005046de610");
}

}  // namespace
}  // namespace nf::data

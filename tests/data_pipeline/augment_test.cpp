// What is drawn for an image: boxes inside it, area and aspect within the options, every place
// reachable, the documented fallback; and pixels that are a function of the position alone.
#include "data_pipeline/augment.h"

#include <gtest/gtest.h>

#include <cmath>
#include <opencv2/imgcodecs.hpp>
#include <set>
#include <vector>

#include "core/rng.h"
#include "data_pipeline/jpeg_transcode.h"
#include "tests/data_pipeline/drawn_dataset.h"
#include "tests/data_pipeline/jpeg_cases.h"

namespace nf::data {
namespace {

TEST(DrawCrop, BoxesKeepToTheOptions) {
  const AugmentOptions options;
  for (const auto& [width, height] :
       {std::pair<int64_t, int64_t>{500, 375}, {375, 500}, {224, 224}, {64, 1000}}) {
    int fallbacks = 0;
    for (uint64_t position = 0; position < 3000; ++position) {
      const Box box = draw_crop(options, width, height, 1, position).box;
      ASSERT_GE(box.x, 0);
      ASSERT_GE(box.y, 0);
      ASSERT_LE(box.x + box.width, width);
      ASSERT_LE(box.y + box.height, height);
      const double area =
          static_cast<double>(box.width * box.height) / static_cast<double>(width * height);
      const double ratio = static_cast<double>(box.width) / static_cast<double>(box.height);
      if (box.width == box.height && box.width == std::min(width, height) * 224 / 256) {
        ++fallbacks;
        continue;
      }
      ASSERT_GE(area, 0.1) << "min_covered";
      ASSERT_LE(area, 1.0);
      ASSERT_GT(ratio, 0.75 - 0.02);
      ASSERT_LT(ratio, 4.0 / 3 + 0.02);
    }
    if (width == 64) {
      EXPECT_EQ(fallbacks, 3000) << "no box of these aspects holds 8 % of a narrow strip";
    } else {
      EXPECT_LT(fallbacks, 100) << width << "x" << height;
    }
  }
}

TEST(DrawCrop, MeanAreaAndFlipsAreThoseOfTheDistribution) {
  const AugmentOptions options;
  constexpr int kDraws = 20000;
  double height = 0, flips = 0, centre = 0;
  for (uint64_t position = 0; position < kDraws; ++position) {
    const CropDraw draw = draw_crop(options, 1000, 1000, 2, position);
    height += static_cast<double>(draw.box.height) / kDraws;
    flips += draw.flip / static_cast<double>(kDraws);
    centre += (static_cast<double>(draw.box.x) + static_cast<double>(draw.box.width) / 2) / kDraws;
  }
  // Height is uniform between those of 8 % and 100 % of the area at the drawn aspect, crops under
  // 10 % drawn again: by integration over the aspect 617 pixels.
  EXPECT_NEAR(height, 617, 6);
  EXPECT_NEAR(flips, 0.5, 0.015);
  EXPECT_NEAR(centre, 500, 5);
}

TEST(DrawCrop, LastPlaceIsReachable) {
  AugmentOptions options;
  options.scale_min = 0.5;
  std::set<int64_t> right, left;
  for (uint64_t position = 0; position < 5000; ++position) {
    const Box box = draw_crop(options, 12, 12, 3, position).box;
    right.insert(12 - box.x - box.width);
    left.insert(box.x);
  }
  EXPECT_EQ(*right.begin(), 0);
  EXPECT_EQ(*left.begin(), 0);
}

TEST(DrawCrop, ImpossibleAreasFallBackToThePaddedCentre) {
  AugmentOptions options;
  options.image_size = 64;
  options.resize_margin = 32;
  options.scale_max = 0.09;  // below min_covered: every attempt fails
  const Box box = draw_crop(options, 90, 61, 1, 1).box;
  EXPECT_EQ(box.width, 40);  // 64 / 96 of 61
  EXPECT_EQ(box.height, 40);
  EXPECT_EQ(box.x, 25);
  EXPECT_EQ(box.y, 11);
}

TEST(DrawCrop, TinyImages) {
  for (int64_t width = 1; width <= 6; ++width) {
    for (int64_t height = 1; height <= 6; ++height) {
      for (uint64_t position = 0; position < 200; ++position) {
        const Box box = draw_crop({}, width, height, 1, position).box;
        ASSERT_GT(box.width * box.height, 0);
        ASSERT_LE(box.x + box.width, width);
        ASSERT_LE(box.y + box.height, height);
      }
    }
  }
}

SampleData sample_of(const cv::Mat& image) {
  SampleData data;
  cv::imencode(".png", image, data.bytes);  // lossless
  data.labels = {0};
  return data;
}

std::vector<uint8_t> pixels(const SampleData& data, const AugmentOptions& options, uint64_t seed,
                            uint64_t position) {
  std::vector<uint8_t> out(static_cast<size_t>(options.image_size * options.image_size * 3));
  const SampleFault fault = load_image(data.bytes, options, seed, position, out.data());
  EXPECT_TRUE(fault.ok()) << fault.reason;
  return out;
}

TEST(LoadImage, PixelsDependOnSeedAndPositionAlone) {
  const SampleData data = sample_of(test::draw_image(1));
  for (const Crop crop : {Crop::kRandomResized, Crop::kRandomPadded}) {
    AugmentOptions options;
    options.image_size = 32;
    options.crop = crop;
    const auto one = pixels(data, options, 7, 100);
    EXPECT_EQ(pixels(data, options, 7, 100), one);
    int same = 0;
    for (uint64_t k = 0; k < 20; ++k) {
      same += pixels(data, options, 7, 200 + k) == one;
      same += pixels(data, options, 8 + k, 100) == one;
    }
    EXPECT_LE(same, 2);
  }
}

TEST(LoadImage, FlipOptionDoesNotMoveTheCrop) {
  AugmentOptions with, without;
  without.flip = false;
  for (uint64_t position = 0; position < 100; ++position) {
    const CropDraw a = draw_crop(with, 300, 200, 1, position),
                   b = draw_crop(without, 300, 200, 1, position);
    EXPECT_EQ(a.box.x, b.box.x);
    EXPECT_EQ(a.box.width, b.box.width);
    EXPECT_FALSE(b.flip);
  }
}

TEST(LoadImage, RandomPaddedShowsAllOffsetsOfTheReflectedImage) {
  // A picture whose pixel values name their place.
  cv::Mat image(8, 8, CV_8UC3);
  for (int y = 0; y < 8; ++y) {
    for (int x = 0; x < 8; ++x)
      image.at<cv::Vec3b>(y, x) = {0, static_cast<uint8_t>(y), static_cast<uint8_t>(x)};
  }
  const SampleData data = sample_of(image);
  AugmentOptions options;
  options.image_size = 8;
  options.crop = Crop::kRandomPadded;
  options.padding = 2;
  const auto mirror = [](int v) { return v < 0 ? -v : v > 7 ? 14 - v : v; };
  std::set<std::string> expected, seen;  // pixels as bytes
  for (int dy = -2; dy <= 2; ++dy) {
    for (int dx = -2; dx <= 2; ++dx) {
      for (const bool flip : {false, true}) {
        std::vector<uint8_t> out;
        for (int y = 0; y < 8; ++y) {
          for (int x = 0; x < 8; ++x) {
            const int column = mirror((flip ? 7 - x : x) + dx);
            out.insert(out.end(),
                       {static_cast<uint8_t>(column), static_cast<uint8_t>(mirror(y + dy)), 0});
          }
        }
        expected.insert(std::string(out.begin(), out.end()));
      }
    }
  }
  for (uint64_t position = 0; position < 1500; ++position) {
    const auto out = pixels(data, options, 1, position);
    seen.insert(std::string(out.begin(), out.end()));
  }
  EXPECT_EQ(seen, expected);
}

TEST(LoadImage, RandomPaddedWithPaddingBeyondTheImage) {
  AugmentOptions options;
  options.crop = Crop::kRandomPadded;
  options.padding = 20;
  for (const int64_t side : {1, 2, 3}) {
    options.image_size = side;
    for (uint64_t position = 0; position < 50; ++position)
      pixels(sample_of(test::draw_image(2)), options, 1, position);
  }
}

TEST(LoadImage, CentreCropIsTheMiddleOfTheSquashedImage) {
  const cv::Mat image = test::draw_image(3);
  AugmentOptions options;
  options.image_size = 32;
  options.resize_margin = 8;
  options.crop = Crop::kCenter;
  const auto out = pixels(sample_of(image), options, 1, 1);
  std::vector<uint8_t> rgb;
  for (int y = 0; y < image.rows; ++y) {
    for (int x = 0; x < image.cols; ++x) {
      for (int c = 2; c >= 0; --c) rgb.push_back(image.at<cv::Vec3b>(y, x)[c]);
    }
  }
  std::vector<uint8_t> whole(40 * 40 * 3);
  resize_rgb(rgb.data(), image.cols, image.rows,
             resize_to_square({0, 0, image.cols, image.rows}, 40, Interpolation::kBicubic),
             whole.data());
  for (size_t y = 0; y < 32; ++y) {
    for (size_t x = 0; x < 96; ++x) ASSERT_EQ(out[y * 96 + x], whole[(y + 4) * 120 + x + 12]);
  }
}

// Only a part of a JPEG is decoded; the pixels are those of decoding the whole.
TEST(LoadImage, PartsOfJpegsHaveTheBitsOfTheWhole) {
  LoadScratch scratch;
  for (uint64_t index = 0; index < 300; ++index) {
    SampleData data;
    data.bytes = test::draw_jpeg_case(test::choose_case(index, 120));
    if (std::vector<uint8_t> stored; index % 2 == 0 && transcode_jpeg(data.bytes, {}, stored))
      data.bytes = stored;
    Image whole;
    ASSERT_TRUE(decode_image(data.bytes, whole).ok());
    AugmentOptions options;
    options.image_size = 32;
    options.interpolation = index % 3 == 0 ? Interpolation::kBilinear : Interpolation::kBicubic;
    options.antialias = index % 7 == 0;
    std::vector<uint8_t> out(32 * 32 * 3), expected = out;
    const CropDraw draw = draw_crop(options, whole.width, whole.height, 1, index);
    ResizeSpec spec = resize_to_square(draw.box, 32, options.interpolation);
    spec.flip = draw.flip;
    spec.antialias = options.antialias;
    resize_rgb(whole.rgb.data(), whole.width, whole.height, spec, expected.data());
    ASSERT_EQ(load_image(data.bytes, options, 1, index, out.data(), scratch).reason, "");
    ASSERT_EQ(out, expected) << index;
    options.crop = Crop::kCenter;
    options.resize_margin = 8;
    spec = resize_to_square({0, 0, whole.width, whole.height}, 40, options.interpolation);
    spec.window_width = spec.window_height = 32;
    spec.window_x = spec.window_y = 4;
    spec.antialias = options.antialias;
    resize_rgb(whole.rgb.data(), whole.width, whole.height, spec, expected.data());
    ASSERT_EQ(load_image(data.bytes, options, 1, index, out.data(), scratch).reason, "");
    ASSERT_EQ(out, expected) << index;
  }
}

TEST(LoadImage, UndecodableBytesAreAFault) {
  SampleData data;
  data.bytes = {1, 2, 3};
  std::vector<uint8_t> out(224 * 224 * 3);
  EXPECT_FALSE(load_image(data.bytes, {}, 1, 1, out.data()).ok());
}

}  // namespace
}  // namespace nf::data

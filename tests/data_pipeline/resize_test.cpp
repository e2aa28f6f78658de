// The fixed-point resizer against a plain float64 one, its exact cases, and its promise never to
// look outside the box.
#include "data_pipeline/resize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/hash.h"
#include "core/rng.h"

namespace nf::data {
namespace {

struct Picture {
  int64_t width, height;
  std::vector<uint8_t> rgb;
  uint8_t at(int64_t x, int64_t y, int64_t c) const {
    return rgb[static_cast<size_t>((y * width + x) * 3 + c)];
  }
};

Picture noise(int64_t width, int64_t height, uint64_t seed) {
  Picture p{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
  PositionRng rng(seed, Stream::kTest, 0);
  for (uint8_t& value : p.rgb) value = static_cast<uint8_t>(rng.below(256));
  // Hard black and white edges: the largest overshoots.
  for (size_t k = 0; k < p.rgb.size() / 2; ++k) p.rgb[k] = p.rgb[k] < 128 ? 0 : 255;
  return p;
}

// Weight of source pixel `s` for output `o`, straight from the definition.
double weight(int64_t o, int64_t s, int64_t in, int64_t out, Interpolation interpolation) {
  const double centre =
      (static_cast<double>(o) + 0.5) * static_cast<double>(in) / static_cast<double>(out) - 0.5;
  const auto kernel = [&](double x) {
    x = std::abs(x);
    if (interpolation == Interpolation::kBilinear) return std::max(0.0, 1 - x);
    if (x < 1) return 1.5 * x * x * x - 2.5 * x * x + 1;
    if (x < 2) return -0.5 * x * x * x + 2.5 * x * x - 4 * x + 2;
    return 0.0;
  };
  double sum = 0;
  for (int64_t k = 0; k < in; ++k) sum += kernel(centre - static_cast<double>(k));
  return kernel(centre - static_cast<double>(s)) / sum;
}

double oracle(const Picture& p, const ResizeSpec& spec, int64_t x, int64_t y, int64_t c) {
  if (spec.flip) x = spec.window_width - 1 - x;
  double value = 0;
  for (int64_t sy = 0; sy < spec.source.height; ++sy) {
    const double wy =
        weight(spec.window_y + y, sy, spec.source.height, spec.full_height, spec.interpolation);
    if (wy == 0) continue;
    for (int64_t sx = 0; sx < spec.source.width; ++sx) {
      const double wx =
          weight(spec.window_x + x, sx, spec.source.width, spec.full_width, spec.interpolation);
      if (wx != 0) value += wy * wx * p.at(spec.source.x + sx, spec.source.y + sy, c);
    }
  }
  return std::clamp(value, 0.0, 255.0);
}

std::vector<uint8_t> resized(const Picture& p, const ResizeSpec& spec) {
  std::vector<uint8_t> out(static_cast<size_t>(spec.window_width * spec.window_height * 3));
  resize_rgb(p.rgb.data(), p.width, p.height, spec, out.data());
  return out;
}

void expect_near_oracle(const Picture& p, const ResizeSpec& spec) {
  const auto out = resized(p, spec);
  double worst = 0;
  for (int64_t y = 0, k = 0; y < spec.window_height; ++y) {
    for (int64_t x = 0; x < spec.window_width; ++x) {
      for (int64_t c = 0; c < 3; ++c, ++k) {
        worst = std::max(worst, std::abs(out[static_cast<size_t>(k)] - oracle(p, spec, x, y, c)));
      }
    }
  }
  EXPECT_LE(worst, 0.75) << spec.source.width << "x" << spec.source.height << " to "
                         << spec.full_width << "x" << spec.full_height;
}

TEST(Resize, MatchesTheDefinitionForManySizes) {
  PositionRng rng(3, Stream::kTest, 1);
  for (const auto interpolation : {Interpolation::kBilinear, Interpolation::kBicubic}) {
    for (int draw = 0; draw < 40; ++draw) {
      const auto below = [&](int n) {
        return static_cast<int64_t>(rng.below(static_cast<uint64_t>(n)));
      };
      const Picture p = noise(1 + below(40), 1 + below(40), static_cast<uint64_t>(draw));
      ResizeSpec spec;
      spec.interpolation = interpolation;
      spec.source.x = below(static_cast<int>(p.width));
      spec.source.y = below(static_cast<int>(p.height));
      spec.source.width = 1 + below(static_cast<int>(p.width - spec.source.x));
      spec.source.height = 1 + below(static_cast<int>(p.height - spec.source.y));
      spec.full_width = 1 + below(30);
      spec.full_height = 1 + below(30);
      spec.window_x = below(static_cast<int>(spec.full_width));
      spec.window_y = below(static_cast<int>(spec.full_height));
      spec.window_width = 1 + below(static_cast<int>(spec.full_width - spec.window_x));
      spec.window_height = 1 + below(static_cast<int>(spec.full_height - spec.window_y));
      spec.flip = draw % 2 == 0;
      expect_near_oracle(p, spec);
    }
  }
}

TEST(Resize, SameSizeIsTheIdentity) {
  for (const auto interpolation : {Interpolation::kBilinear, Interpolation::kBicubic}) {
    for (const int64_t side : {1, 2, 3, 4, 5, 32, 97}) {
      const Picture p = noise(side, side, 4);
      EXPECT_EQ(resized(p, resize_to_square({0, 0, side, side}, side, interpolation)), p.rgb);
    }
  }
}

TEST(Resize, FlatStaysFlat) {
  for (const uint8_t level : {0, 1, 127, 254, 255}) {
    const Picture p{37, 23, std::vector<uint8_t>(37 * 23 * 3, level)};
    for (const int64_t side : {1, 7, 64}) {
      for (const uint8_t value :
           resized(p, resize_to_square({0, 0, 37, 23}, side, Interpolation::kBicubic))) {
        ASSERT_EQ(value, level);
      }
    }
  }
}

TEST(Resize, ABoxGivesWhatItsCutOutGives) {
  const Picture p = noise(50, 40, 5);
  const Box box{7, 11, 22, 17};
  Picture cut{box.width, box.height, {}};
  for (int64_t y = 0; y < box.height; ++y) {
    for (int64_t x = 0; x < box.width; ++x) {
      for (int64_t c = 0; c < 3; ++c) cut.rgb.push_back(p.at(box.x + x, box.y + y, c));
    }
  }
  EXPECT_EQ(resized(p, resize_to_square(box, 32, Interpolation::kBicubic)),
            resized(cut, resize_to_square({0, 0, 22, 17}, 32, Interpolation::kBicubic)));
}

TEST(Resize, WindowIsACutOfTheWholeAndFlipMirrorsIt) {
  const Picture p = noise(61, 45, 6);
  ResizeSpec whole = resize_to_square({0, 0, 61, 45}, 40, Interpolation::kBicubic);
  const auto all = resized(p, whole);
  ResizeSpec window = whole;
  window.window_x = window.window_y = 4;
  window.window_width = window.window_height = 32;
  const auto part = resized(p, window);
  window.flip = true;
  const auto mirrored = resized(p, window);
  for (size_t y = 0; y < 32; ++y) {
    for (size_t x = 0; x < 32; ++x) {
      for (size_t c = 0; c < 3; ++c) {
        ASSERT_EQ(part[(y * 32 + x) * 3 + c], all[((y + 4) * 40 + x + 4) * 3 + c]);
        ASSERT_EQ(mirrored[(y * 32 + 31 - x) * 3 + c], part[(y * 32 + x) * 3 + c]);
      }
    }
  }
}

TEST(Resize, BadBoxesAreRefused) {
  const Picture p = noise(8, 8, 7);
  std::vector<uint8_t> out(3 * 16);
  EXPECT_THROW(resize_rgb(p.rgb.data(), 8, 8,
                          resize_to_square({5, 0, 4, 8}, 4, Interpolation::kBicubic), out.data()),
               std::logic_error);
  ResizeSpec spec = resize_to_square({0, 0, 8, 8}, 4, Interpolation::kBicubic);
  spec.window_x = 1;
  EXPECT_THROW(resize_rgb(p.rgb.data(), 8, 8, spec, out.data()), std::logic_error);
}

// The bits of a run depend on these.
TEST(Resize, GoldenBits) {
  const Picture p = noise(83, 61, 8);
  const auto digest = [&](Interpolation interpolation) {
    const auto out = resized(p, resize_to_square({3, 5, 71, 50}, 48, interpolation));
    return sha256(as_bytes({reinterpret_cast<const char*>(out.data()), out.size()})).substr(0, 16);
  };
  EXPECT_EQ(digest(Interpolation::kBicubic), "064427b4b30aa9a1");
  EXPECT_EQ(digest(Interpolation::kBilinear), "3f3a1d8cd8f86824");
}

}  // namespace
}  // namespace nf::data

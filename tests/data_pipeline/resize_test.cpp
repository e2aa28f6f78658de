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

// Draws a resize of a noisy picture: any sizes, windows, flips.
struct Draw {
  Picture picture;
  ResizeSpec spec;
};

Draw draw_resize(uint64_t index, int max_side) {
  PositionRng rng(9, Stream::kTest, index);
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(rng.below(static_cast<uint64_t>(n)));
  };
  Draw d{noise(1 + below(max_side), 1 + below(max_side), index), {}};
  ResizeSpec& s = d.spec;
  s.source.x = below(d.picture.width);
  s.source.y = below(d.picture.height);
  s.source.width = 1 + below(d.picture.width - s.source.x);
  s.source.height = 1 + below(d.picture.height - s.source.y);
  s.full_width = 1 + below(max_side);
  s.full_height = 1 + below(max_side);
  s.window_x = below(s.full_width);
  s.window_y = below(s.full_height);
  s.window_width = 1 + below(s.full_width - s.window_x);
  s.window_height = 1 + below(s.full_height - s.window_y);
  s.flip = below(2) == 0;
  s.interpolation = below(2) == 0 ? Interpolation::kBilinear : Interpolation::kBicubic;
  return d;
}

// Each level against the portable one; levels that this processor lacks cannot be compared here.
TEST(Resize, EverySimdLevelGivesTheSameBits) {
  Resizer portable(SimdLevel::kPortable);
  int compared = 0;
  for (const auto level : {SimdLevel::kAvx2, SimdLevel::kAvx512}) {
    if (level > best_simd_level()) continue;
    Resizer wide(level);
    for (uint64_t index = 0; index < 1500; ++index, ++compared) {
      const Draw d = draw_resize(index, 130);
      const PixelView view{
          d.picture.rgb.data(), d.picture.width * 3, {0, 0, d.picture.width, d.picture.height}};
      std::vector<uint8_t> a(static_cast<size_t>(d.spec.window_width * d.spec.window_height * 3)),
          b = a;
      portable.run(view, d.spec, a.data());
      wide.run(view, d.spec, b.data());
      ASSERT_EQ(a, b) << index;
    }
  }
  EXPECT_EQ(compared, 1500 * static_cast<int>(best_simd_level()));
}

// With nothing but the needed pixels in memory the result is the same.
TEST(Resize, NeededPixelsAreEnough) {
  Resizer resizer;
  for (uint64_t index = 0; index < 1500; ++index) {
    Draw d = draw_resize(index, 90);
    d.spec.antialias = index % 5 == 0;
    const Box need = pixels_needed(d.spec);
    EXPECT_TRUE(contains(d.spec.source, need));
    std::vector<uint8_t> cut;  // its own allocation: address sanitizers see what lies outside
    for (int64_t y = need.y; y < need.y + need.height; ++y) {
      const uint8_t* row = d.picture.rgb.data() + (y * d.picture.width + need.x) * 3;
      cut.insert(cut.end(), row, row + need.width * 3);
    }
    std::vector<uint8_t> out(static_cast<size_t>(d.spec.window_width * d.spec.window_height * 3));
    resizer.run({cut.data(), need.width * 3, need}, d.spec, out.data());
    ASSERT_EQ(out, resized(d.picture, d.spec)) << index;
  }
}

TEST(Resize, AntialiasMatchesItsDefinition) {
  for (const auto interpolation : {Interpolation::kBilinear, Interpolation::kBicubic}) {
    const Picture p = noise(97, 64, 3);
    ResizeSpec spec = resize_to_square({2, 1, 90, 60}, 24, interpolation);
    spec.antialias = true;
    const auto out = resized(p, spec);
    const auto weight_of = [&](int64_t o, int64_t s, int64_t in) {
      const double f = static_cast<double>(in) / 24;
      double sum = 0, own = 0;
      for (int64_t k = 0; k < in; ++k) {
        // The plain kernel at a distance measured in output pixels: in = out = in, shifted.
        const double x =
            std::abs(((static_cast<double>(o) + 0.5) * f - 0.5 - static_cast<double>(k)) / f);
        double w = interpolation == Interpolation::kBilinear ? std::max(0.0, 1 - x)
                   : x < 1                                   ? 1.5 * x * x * x - 2.5 * x * x + 1
                   : x < 2 ? -0.5 * x * x * x + 2.5 * x * x - 4 * x + 2
                           : 0;
        sum += w;
        if (k == s) own = w;
      }
      return own / sum;
    };
    for (int64_t y = 0; y < 24; y += 5) {
      for (int64_t x = 0; x < 24; x += 3) {
        double value = 0;
        for (int64_t sy = 0; sy < 60; ++sy) {
          const double wy = weight_of(y, sy, 60);
          if (wy == 0) continue;
          for (int64_t sx = 0; sx < 90; ++sx)
            value += wy * weight_of(x, sx, 90) * p.at(2 + sx, 1 + sy, 1);
        }
        EXPECT_NEAR(out[static_cast<size_t>((y * 24 + x) * 3 + 1)], std::clamp(value, 0.0, 255.0),
                    0.75);
      }
    }
  }
  // Without shrinking there is nothing to smooth.
  const Picture p = noise(20, 20, 4);
  ResizeSpec larger = resize_to_square({0, 0, 20, 20}, 33, Interpolation::kBicubic);
  const auto plain = resized(p, larger);
  larger.antialias = true;
  EXPECT_EQ(resized(p, larger), plain);
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

// See randaugment.h.
#include "data_pipeline/randaugment.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "core/check.h"
#include "core/rng.h"

namespace nf::data {
namespace {

constexpr uint8_t kFill = 128;
constexpr uint64_t kDraws = 3;  // under which the seed is derived for Stream::kMix

struct Pixels {
  int64_t width, height;
  uint8_t* rgb;
  std::vector<uint8_t>& scratch;

  size_t bytes() const { return static_cast<size_t>(width * height * 3); }
  const uint8_t* copy() const {
    scratch.assign(rgb, rgb + bytes());
    return scratch.data();
  }
};

using Table = std::array<uint8_t, 256>;

template <class Function>
Table make_table(const Function& f) {
  Table table{};
  for (int v = 0; v < 256; ++v) table[static_cast<size_t>(v)] = static_cast<uint8_t>(f(v));
  return table;
}

void look_up(const Pixels& p, const std::array<Table, 3>& tables) {
  for (size_t i = 0; i < p.bytes(); i += 3)
    for (size_t c = 0; c < 3; ++c) p.rgb[i + c] = tables[c][p.rgb[i + c]];
}

template <class Function>
void map_values(const Pixels& p, const Function& f) {
  const Table table = make_table(f);
  look_up(p, {table, table, table});
}

std::array<std::array<int64_t, 256>, 3> histograms(const Pixels& p) {
  std::array<std::array<int64_t, 256>, 3> counts{};
  for (size_t i = 0; i < p.bytes(); i += 3)
    for (size_t c = 0; c < 3; ++c) ++counts[c][p.rgb[i + c]];
  return counts;
}

// Each channel's range is stretched to 0..255.
void auto_contrast(const Pixels& p) {
  const auto counts = histograms(p);
  std::array<Table, 3> tables;
  for (size_t c = 0; c < 3; ++c) {
    int low = 0, high = 255;
    while (low < 255 && counts[c][static_cast<size_t>(low)] == 0) ++low;
    while (high > 0 && counts[c][static_cast<size_t>(high)] == 0) --high;
    tables[c] = make_table(
        [=](int v) { return high > low ? std::clamp((v - low) * 255 / (high - low), 0, 255) : v; });
  }
  look_up(p, tables);
}

// Pillow's rule: steps of equal counts, the last value's own count left out of their size.
void equalize(const Pixels& p) {
  const auto counts = histograms(p);
  std::array<Table, 3> tables;
  for (size_t c = 0; c < 3; ++c) {
    const auto last =
        std::find_if(counts[c].rbegin(), counts[c].rend(), [](int64_t count) { return count > 0; });
    const int64_t step = (p.width * p.height - *last) / 255;
    int64_t below = step / 2;
    tables[c] = make_table([&](int v) {
      const int64_t level = step > 0 ? std::min<int64_t>(below / step, 255) : v;
      below += counts[c][static_cast<size_t>(v)];
      return level;
    });
  }
  look_up(p, tables);
}

// out(x, y) = in(xx x + xy y + x0, yx x + yy y + y0), nearest pixel. Coordinates in 2^-32 pixels:
// sums of integers, the same whoever vectorises them.
struct Affine {
  double xx = 1, xy = 0, x0 = 0, yx = 0, yy = 1, y0 = 0;
};

void transform(const Pixels& p, const Affine& a) {
  const auto fixed = [](double v) { return static_cast<int64_t>(std::llrint(v * 0x1p32)); };
  const int64_t xx = fixed(a.xx), xy = fixed(a.xy), yx = fixed(a.yx), yy = fixed(a.yy);
  const int64_t half = int64_t{1} << 31, x0 = fixed(a.x0) + half, y0 = fixed(a.y0) + half;
  const uint8_t* source = p.copy();
  uint8_t* out = p.rgb;
  for (int64_t y = 0; y < p.height; ++y) {
    int64_t at_x = xy * y + x0, at_y = yy * y + y0;
    for (int64_t x = 0; x < p.width; ++x, out += 3, at_x += xx, at_y += yx) {
      const int64_t sx = at_x >> 32, sy = at_y >> 32;
      if (sx >= 0 && sx < p.width && sy >= 0 && sy < p.height) {
        std::copy_n(source + (sy * p.width + sx) * 3, 3, out);
      } else {
        std::fill_n(out, 3, kFill);
      }
    }
  }
}

Affine rotation(const Pixels& p, double degrees) {
  const double angle = degrees * 3.14159265358979323846 / 180;
  const double c = std::cos(angle), s = std::sin(angle);
  const auto w = static_cast<double>(p.width - 1), h = static_cast<double>(p.height - 1);
  return {c, -s, (w - (c * w - s * h)) / 2, s, c, (h - (s * w + c * h)) / 2};
}

// base + factor (value - base), factor in 1/65536, rounded down, clamped.
uint8_t blend(int base, int value, int64_t factor) {
  const int64_t mixed = base * int64_t{65536} + factor * (value - base);
  return static_cast<uint8_t>(std::clamp<int64_t>(mixed >> 16, 0, 255));
}

int luma(const uint8_t* rgb) {  // ITU-R 601
  return static_cast<int>((19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 32768u) >> 16);
}

void color(const Pixels& p, int64_t factor) {
  for (uint8_t* at = p.rgb; at != p.rgb + p.bytes(); at += 3) {
    const int gray = luma(at);
    for (size_t c = 0; c < 3; ++c) at[c] = blend(gray, at[c], factor);
  }
}

void contrast(const Pixels& p, int64_t factor) {
  const int64_t count = p.width * p.height;
  int64_t sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += luma(p.rgb + 3 * i);
  const auto mean = static_cast<int>((2 * sum + count) / (2 * count));
  map_values(p, [&](int v) { return blend(mean, v, factor); });
}

// Smoothed by (1 1 1; 1 5 1; 1 1 1) / 13; the border has no full neighbourhood and stays.
void sharpness(const Pixels& p, int64_t factor) {
  const uint8_t* source = p.copy();
  const int64_t row = p.width * 3;
  for (int64_t y = 1; y + 1 < p.height; ++y) {
    for (int64_t x = 3; x + 3 < row; ++x) {
      const uint8_t* at = source + y * row + x;
      int sum = 4 * at[0];
      for (const int64_t line : {-row, int64_t{0}, row})
        sum += at[line - 3] + at[line] + at[line + 3];
      p.rgb[y * row + x] = blend(sum / 13, at[0], factor);
    }
  }
}

void cutout(const Pixels& p, const RandAugmentDraw& draw, int64_t half) {
  const int64_t left = std::max<int64_t>(0, draw.centre_x - half);
  const int64_t right = std::min(p.width, draw.centre_x + half);
  for (int64_t y = std::max<int64_t>(0, draw.centre_y - half);
       y < std::min(p.height, draw.centre_y + half); ++y)
    std::fill(p.rgb + (y * p.width + left) * 3, p.rgb + (y * p.width + right) * 3, kFill);
}

}  // namespace

void apply_rand_augment(const RandAugmentDraw& draw, double magnitude, int64_t width,
                        int64_t height, uint8_t* rgb, std::vector<uint8_t>& scratch) {
  using Op = RandAugmentOp;
  NF_CHECK(width > 0 && height > 0 && magnitude >= 0, "apply_rand_augment: bad arguments");
  const Pixels p{width, height, rgb, scratch};
  const double level = magnitude / 10, signed_level = draw.negative ? -level : level;
  const auto factor = static_cast<int64_t>(std::lrint((0.1 + 1.8 * level) * 65536));
  const auto whole = [level](double at_ten) { return static_cast<int>(level * at_ten); };
  switch (draw.op) {
    case Op::kAutoContrast:
      return auto_contrast(p);
    case Op::kEqualize:
      return equalize(p);
    case Op::kInvert:
      return map_values(p, [](int v) { return 255 - v; });
    case Op::kRotate:
      return transform(p, rotation(p, signed_level * 30));
    case Op::kPosterize: {
      const int mask = 0xFF00 >> std::min(whole(4), 8) & 0xFF;
      return map_values(p, [&](int v) { return v & mask; });
    }
    case Op::kSolarize:
      return map_values(p, [&](int v) { return v < whole(256) ? v : 255 - v; });
    case Op::kColor:
      return color(p, factor);
    case Op::kContrast:
      return contrast(p, factor);
    case Op::kBrightness:
      return map_values(p, [&](int v) { return blend(0, v, factor); });
    case Op::kSharpness:
      return sharpness(p, factor);
    case Op::kShearX:
      return transform(p, {.xy = signed_level * 0.3});
    case Op::kShearY:
      return transform(p, {.yx = signed_level * 0.3});
    case Op::kTranslateX:
      return transform(p, {.x0 = signed_level * 100});
    case Op::kTranslateY:
      return transform(p, {.y0 = signed_level * 100});
    case Op::kCutout:
      return cutout(p, draw, whole(40));
    case Op::kSolarizeAdd:
      return map_values(p, [&](int v) { return v < 128 ? std::min(v + whole(110), 255) : v; });
  }
}

RandAugmentDraw draw_rand_augment(int64_t width, int64_t height, uint64_t seed, uint64_t position,
                                  int64_t layer) {
  // Each layer has a stream of its own, so that adding a layer changes none before it.
  const uint64_t key = derive_key(derive_key(seed, kDraws, Stream::kMix),
                                  static_cast<uint64_t>(layer), Stream::kAugment);
  PositionRng rng(key, Stream::kAugment, position);
  RandAugmentDraw draw;
  draw.op = static_cast<RandAugmentOp>(rng.below(kRandAugmentOps));
  draw.negative = rng.below(2) == 1;
  draw.centre_x = static_cast<int64_t>(rng.below(static_cast<uint64_t>(width)));
  draw.centre_y = static_cast<int64_t>(rng.below(static_cast<uint64_t>(height)));
  return draw;
}

void rand_augment(const RandAugmentOptions& options, int64_t width, int64_t height, uint64_t seed,
                  uint64_t position, uint8_t* rgb, std::vector<uint8_t>& scratch) {
  for (int64_t layer = 0; layer < options.layers; ++layer) {
    apply_rand_augment(draw_rand_augment(width, height, seed, position, layer), options.magnitude,
                       width, height, rgb, scratch);
  }
}

}  // namespace nf::data

// See resize.h. Weights are Q14 and sum to exactly 2^14; the horizontal pass keeps 6 fractional
// bits in 16-bit integers, the vertical pass sums in 32 bits. The largest overshoot of the kernel
// (sum of |weights| < 1.6, also after scaling at a border) leaves room in both. Only source rows
// that an output row needs are resized, each once.
#include "data_pipeline/resize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "core/check.h"

namespace nf::data {
namespace {

constexpr int kTaps = 4;
constexpr int kWeightBits = 14;
constexpr int kRowBits = 6;

struct Tap {
  int32_t first;                      // source index of tap 0, all taps inside [0, in)
  std::array<int16_t, kTaps> weight;  // Q14
};

// Keys (1981) with a = -0.5 at distances 1 + t, t, 1 - t, 2 - t.
std::array<double, kTaps> bicubic(double t) {
  constexpr double a = -0.5;
  const auto near = [](double x) { return ((a + 2) * x - (a + 3)) * x * x + 1; };
  const auto far = [](double x) { return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a; };
  return {far(1 + t), near(t), near(1 - t), far(2 - t)};
}

// Taps of output `o` of `in` source pixels resized to `out`. The centre is ((2 o + 1) in - out) /
// (2 out), exactly.
Tap make_tap(int64_t o, int64_t in, int64_t out, Interpolation interpolation) {
  const int64_t numerator = (2 * o + 1) * in - out, denominator = 2 * out;
  int64_t floor = numerator / denominator;
  if (numerator < floor * denominator) --floor;
  const double t =
      static_cast<double>(numerator - floor * denominator) / static_cast<double>(denominator);
  const std::array<double, kTaps> full = interpolation == Interpolation::kBicubic
                                             ? bicubic(t)
                                             : std::array<double, kTaps>{0, 1 - t, t, 0};
  // Taps live at floor - 1 .. floor + 2. Those outside get weight 0; the window of four is pushed
  // inside, so that the loops below need no bounds (images under four pixels have their unused taps
  // at weight 0 on a repeated index).
  const int64_t first = std::clamp<int64_t>(floor - 1, 0, std::max<int64_t>(in - kTaps, 0));
  std::array<double, kTaps> inside{};
  double sum = 0;
  for (int64_t k = 0; k < kTaps; ++k) {
    const int64_t source = floor - 1 + k;
    if (source < 0 || source >= in) continue;
    inside[static_cast<size_t>(source - first)] = full[static_cast<size_t>(k)];
    sum += full[static_cast<size_t>(k)];
  }
  Tap tap{static_cast<int32_t>(first), {}};
  int total = 0;
  size_t largest = 0;
  for (size_t k = 0; k < kTaps; ++k) {
    const long weight = std::lround(inside[k] / sum * (1 << kWeightBits));
    tap.weight[k] = static_cast<int16_t>(weight);
    total += tap.weight[k];
    if (inside[k] > inside[largest]) largest = k;
  }
  tap.weight[largest] = static_cast<int16_t>(tap.weight[largest] + (1 << kWeightBits) - total);
  return tap;
}

// One source row to the window's columns. `columns` are in output order (already mirrored).
void resize_row(const uint8_t* row, int64_t in, const std::vector<Tap>& columns, int16_t* out) {
  constexpr int kShift = kWeightBits - kRowBits;
  constexpr int32_t kHalf = 1 << (kShift - 1);
  if (in >= kTaps) {
    for (const Tap& tap : columns) {
      const uint8_t* p = row + int64_t{tap.first} * 3;
      for (int c = 0; c < 3; ++c, ++p) {
        const int32_t sum = tap.weight[0] * p[0] + tap.weight[1] * p[3] + tap.weight[2] * p[6] +
                            tap.weight[3] * p[9];
        *out++ = static_cast<int16_t>((sum + kHalf) >> kShift);
      }
    }
    return;
  }
  for (const Tap& tap : columns) {
    for (int64_t c = 0; c < 3; ++c) {
      int32_t sum = 0;
      for (int64_t k = 0; k < in; ++k) sum += tap.weight[static_cast<size_t>(k)] * row[k * 3 + c];
      *out++ = static_cast<int16_t>((sum + kHalf) >> kShift);
    }
  }
}

void blend_rows(const std::array<const int16_t*, kTaps>& rows,
                const std::array<int16_t, kTaps>& weight, size_t count, uint8_t* out) {
  constexpr int kShift = kWeightBits + kRowBits;
  constexpr int32_t kHalf = 1 << (kShift - 1);
  for (size_t k = 0; k < count; ++k) {
    const int32_t sum = weight[0] * rows[0][k] + weight[1] * rows[1][k] + weight[2] * rows[2][k] +
                        weight[3] * rows[3][k];
    out[k] = static_cast<uint8_t>(std::clamp((sum + kHalf) >> kShift, 0, 255));
  }
}

}  // namespace

ResizeSpec resize_to_square(const Box& source, int64_t side, Interpolation interpolation) {
  ResizeSpec spec;
  spec.source = source;
  spec.full_width = spec.full_height = spec.window_width = spec.window_height = side;
  spec.interpolation = interpolation;
  return spec;
}

void resize_rgb(const uint8_t* rgb, int64_t width, int64_t height, const ResizeSpec& spec,
                uint8_t* out) {
  const Box& box = spec.source;
  NF_CHECK(box.x >= 0 && box.y >= 0 && box.width > 0 && box.height > 0 &&
               box.x + box.width <= width && box.y + box.height <= height,
           "resize_rgb: box outside the image");
  NF_CHECK(spec.window_x >= 0 && spec.window_y >= 0 && spec.window_width > 0 &&
               spec.window_height > 0 && spec.window_x + spec.window_width <= spec.full_width &&
               spec.window_y + spec.window_height <= spec.full_height,
           "resize_rgb: window outside the result");
  std::vector<Tap> columns(static_cast<size_t>(spec.window_width));
  for (int64_t c = 0; c < spec.window_width; ++c) {
    const int64_t at = spec.flip ? spec.window_width - 1 - c : c;
    columns[static_cast<size_t>(at)] =
        make_tap(spec.window_x + c, box.width, spec.full_width, spec.interpolation);
  }
  const size_t row_values = columns.size() * 3;
  // Row y of the source lives in slot y % 4: the four rows of one output row never collide.
  std::vector<int16_t> slots(row_values * kTaps);
  std::array<int64_t, kTaps> held;
  held.fill(-1);
  for (int64_t r = 0; r < spec.window_height; ++r) {
    const Tap tap = make_tap(spec.window_y + r, box.height, spec.full_height, spec.interpolation);
    std::array<const int16_t*, kTaps> rows;
    for (size_t k = 0; k < kTaps; ++k) {
      const int64_t y = std::min<int64_t>(tap.first + static_cast<int64_t>(k), box.height - 1);
      int16_t* slot = slots.data() + static_cast<size_t>(y % kTaps) * row_values;
      rows[k] = slot;
      if (tap.weight[k] == 0 || held[static_cast<size_t>(y % kTaps)] == y) continue;
      held[static_cast<size_t>(y % kTaps)] = y;
      resize_row(rgb + ((box.y + y) * width + box.x) * 3, box.width, columns, slot);
    }
    blend_rows(rows, tap.weight, row_values, out + static_cast<size_t>(r) * row_values);
  }
}

}  // namespace nf::data

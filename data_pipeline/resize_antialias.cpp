// See resize_antialias.h. Weights are Q14, rounded along the running sum, so they add up to exactly
// 2^14 however many and small they are.
#include "data_pipeline/resize_antialias.h"

#include <algorithm>
#include <cmath>

#include "data_pipeline/resize.h"

namespace nf::data {
namespace {

double kernel(double x, Interpolation interpolation) {
  x = std::abs(x);
  if (interpolation == Interpolation::kBilinear) return std::max(0.0, 1 - x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

struct Taps {
  int64_t first = 0;
  std::vector<int32_t> weight;  // Q14
};

// Output `o` of `in` pixels resized to `out`.
Taps make_taps(int64_t o, int64_t in, int64_t out, Interpolation interpolation) {
  const double factor = static_cast<double>(in) / static_cast<double>(out);
  const double stretch = std::max(1.0, factor);
  const double reach = stretch * (interpolation == Interpolation::kBicubic ? 2 : 1);
  const double centre = (static_cast<double>(o) + 0.5) * factor - 0.5;
  const auto first = std::max<int64_t>(0, static_cast<int64_t>(std::ceil(centre - reach)));
  const auto last = std::min<int64_t>(in - 1, static_cast<int64_t>(std::floor(centre + reach)));
  double sum = 0;
  for (int64_t k = first; k <= last; ++k)
    sum += kernel((static_cast<double>(k) - centre) / stretch, interpolation);
  Taps taps;
  taps.first = first;
  double running = 0;
  int32_t given = 0;
  for (int64_t k = first; k <= last; ++k) {
    running += kernel((static_cast<double>(k) - centre) / stretch, interpolation);
    const auto until = k == last
                           ? 1 << kWeightBits
                           : static_cast<int32_t>(std::lround(running / sum * (1 << kWeightBits)));
    taps.weight.push_back(until - given);
    given = until;
  }
  return taps;
}

}  // namespace

void AntialiasResizer::run(const PixelView& pixels, const ResizeSpec& spec, uint8_t* out) {
  constexpr int kRowShift = kWeightBits - kRowBits, kBlendShift = kWeightBits + kRowBits;
  const Box& box = spec.source;
  std::vector<Taps> columns;
  for (int64_t c = 0; c < spec.window_width; ++c) {
    const int64_t at = spec.flip ? spec.window_width - 1 - c : c;
    columns.push_back(
        make_taps(spec.window_x + at, box.width, spec.full_width, spec.interpolation));
  }
  const size_t row_values = columns.size() * 3;
  rows_.resize(row_values * static_cast<size_t>(box.height));
  int64_t done = 0;  // source rows before it are resized
  for (int64_t r = 0; r < spec.window_height; ++r) {
    const Taps taps =
        make_taps(spec.window_y + r, box.height, spec.full_height, spec.interpolation);
    const int64_t end = taps.first + static_cast<int64_t>(taps.weight.size());
    for (int64_t y = std::max(done, taps.first); y < end; ++y) {
      const uint8_t* row = pixels.at(box.x, box.y + y);
      int16_t* to = rows_.data() + static_cast<size_t>(y) * row_values;
      for (const Taps& column : columns) {
        int32_t sum[3] = {};
        const uint8_t* p = row + column.first * 3;
        for (const int32_t w : column.weight) {
          for (int c = 0; c < 3; ++c) sum[c] += w * *p++;
        }
        for (const int32_t s : sum)
          *to++ = static_cast<int16_t>((s + (1 << (kRowShift - 1))) >> kRowShift);
      }
    }
    done = std::max(done, end);
    sums_.assign(row_values, 1 << (kBlendShift - 1));
    for (size_t t = 0; t < taps.weight.size(); ++t) {
      const int16_t* row = rows_.data() + (static_cast<size_t>(taps.first) + t) * row_values;
      const int32_t w = taps.weight[t];
      for (size_t k = 0; k < row_values; ++k) sums_[k] += w * row[k];
    }
    for (size_t k = 0; k < row_values; ++k)
      *out++ = static_cast<uint8_t>(std::clamp(sums_[k] >> kBlendShift, 0, 255));
  }
}

}  // namespace nf::data

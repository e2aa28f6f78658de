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
#include "data_pipeline/resize_antialias.h"

namespace nf::data {
namespace {

constexpr int64_t kTaps = kResizeTaps;

struct Tap {
  int64_t first;                      // source index of tap 0
  std::array<int16_t, kTaps> weight;  // Q14
};

// Keys (1981) with a = -0.5 at distances 1 + t, t, 1 - t, 2 - t.
std::array<double, kTaps> bicubic(double t) {
  constexpr double a = -0.5;
  const auto near = [](double x) { return ((a + 2) * x - (a + 3)) * x * x + 1; };
  const auto far = [](double x) { return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a; };
  return {far(1 + t), near(t), near(1 - t), far(2 - t)};
}

// std::lround for |x| < 2^31, without the call.
int32_t round_away(double x) {
  const auto whole = static_cast<int32_t>(x);
  const double rest = x - whole;
  return whole + (rest >= 0.5) - (rest <= -0.5);
}

// The taps of one axis: `out` output pixels over `in` source pixels.
class Axis {
 public:
  Axis(int64_t in, int64_t out, Interpolation interpolation)
      : in_(in), out_(out), interpolation_(interpolation) {}

  // Taps of output `o`. The centre is ((2 o + 1) in - out) / (2 out), exactly.
  Tap tap(int64_t o) const {
    const int64_t numerator = (2 * o + 1) * in_ - out_, denominator = 2 * out_;
    int64_t floor = numerator / denominator;
    if (numerator < floor * denominator) --floor;
    const double t =
        static_cast<double>(numerator - floor * denominator) / static_cast<double>(denominator);
    const std::array<double, kTaps> full = interpolation_ == Interpolation::kBicubic
                                               ? bicubic(t)
                                               : std::array<double, kTaps>{0, 1 - t, t, 0};
    if (floor >= 1 && floor + 2 < in_) return quantise(floor - 1, full);
    // Taps live at floor - 1 .. floor + 2. Those outside get weight 0; the window of four is pushed
    // inside, so that the loops need no bounds (images under four pixels have their unused taps at
    // weight 0).
    const int64_t first = std::clamp<int64_t>(floor - 1, 0, std::max<int64_t>(in_ - kTaps, 0));
    std::array<double, kTaps> inside{};
    for (int64_t k = 0; k < kTaps; ++k) {
      const int64_t source = floor - 1 + k;
      if (source >= 0 && source < in_)
        inside[static_cast<size_t>(source - first)] = full[static_cast<size_t>(k)];
    }
    return quantise(first, inside);
  }

 private:
  static Tap quantise(int64_t first, const std::array<double, kTaps>& weight) {
    Tap tap{first, {}};
    double sum = 0;
    for (const double w : weight) sum += w;
    int total = 0;
    size_t largest = 0;
    for (size_t k = 0; k < kTaps; ++k) {
      const int32_t rounded = round_away(weight[k] / sum * (1 << kWeightBits));
      tap.weight[k] = static_cast<int16_t>(rounded);
      total += rounded;
      if (weight[k] > weight[largest]) largest = k;
    }
    tap.weight[largest] = static_cast<int16_t>(tap.weight[largest] + (1 << kWeightBits) - total);
    return tap;
  }

  int64_t in_, out_;
  Interpolation interpolation_;
};

void check(const ResizeSpec& spec) {
  NF_CHECK(spec.source.width > 0 && spec.source.height > 0, "resize: empty box");
  NF_CHECK(spec.window_x >= 0 && spec.window_y >= 0 && spec.window_width > 0 &&
               spec.window_height > 0 && spec.window_x + spec.window_width <= spec.full_width &&
               spec.window_y + spec.window_height <= spec.full_height,
           "resize: window outside the result");
}

// Source rows narrower than four pixels.
void narrow_row(const uint8_t* row, int64_t in, const ResizeColumns& columns, int16_t* out) {
  constexpr int kShift = kWeightBits - kRowBits;
  for (size_t i = 0; i < columns.at.size(); ++i) {
    for (int64_t c = 0; c < 3; ++c) {
      int32_t sum = 0;
      for (int64_t k = 0; k < in; ++k)
        sum += columns.weight[kResizeTaps * i + static_cast<size_t>(k)] * row[k * 3 + c];
      *out++ = static_cast<int16_t>((sum + (1 << (kShift - 1))) >> kShift);
    }
  }
}

}  // namespace

struct Resizer::Impl {
  ResizeKernels kernels;
  AntialiasResizer antialias;
  ResizeColumns columns;
  std::vector<int16_t> slots;

  explicit Impl(SimdLevel level) : kernels(resize_kernels(level)) {}

  void set_columns(const PixelView& pixels, const ResizeSpec& spec);
  void run(const PixelView& pixels, const ResizeSpec& spec, uint8_t* out);
};

void Resizer::Impl::set_columns(const PixelView& pixels, const ResizeSpec& spec) {
  const auto n = static_cast<size_t>(spec.window_width);
  columns.at.resize(n);
  columns.weight.resize(kResizeTaps * n);
  columns.wide.resize(16 * n);
  const Axis axis(spec.source.width, spec.full_width, spec.interpolation);
  const int64_t left = spec.source.x - pixels.box.x;
  const int64_t row_bytes = pixels.box.width * 3;
  columns.wide_begin = spec.flip ? n : 0;
  columns.wide_end = spec.flip ? n : 0;
  for (int64_t c = 0; c < spec.window_width; ++c) {
    const auto at = static_cast<size_t>(spec.flip ? spec.window_width - 1 - c : c);
    const Tap tap = axis.tap(spec.window_x + c);
    const int64_t byte = (left + tap.first) * 3;
    columns.at[at] = static_cast<int32_t>(byte);
    std::copy_n(tap.weight.begin(), kResizeTaps, columns.weight.begin() + kResizeTaps * at);
    if (byte + 16 > row_bytes) continue;  // vectors read 16 bytes
    (spec.flip ? columns.wide_begin : columns.wide_end) = spec.flip ? at : at + 1;
    for (size_t k = 0; k < 16; ++k) columns.wide[16 * at + k] = tap.weight[k / 8 * 2 + k % 2];
  }
}

void Resizer::Impl::run(const PixelView& pixels, const ResizeSpec& spec, uint8_t* out) {
  set_columns(pixels, spec);
  const Box& box = spec.source;
  const size_t row_values = static_cast<size_t>(spec.window_width) * 3;
  const size_t slot_size = row_values + 8;  // for what a row kernel writes behind its last column
  // Row y of the source lives in slot y % 4: the four rows of one output row never collide.
  slots.resize(slot_size * kResizeTaps);
  std::array<int64_t, kTaps> held;
  held.fill(-1);
  const Axis axis(box.height, spec.full_height, spec.interpolation);
  for (int64_t r = 0; r < spec.window_height; ++r) {
    const Tap tap = axis.tap(spec.window_y + r);
    std::array<const int16_t*, kTaps> rows;
    for (size_t k = 0; k < kResizeTaps; ++k) {
      const int64_t y = std::min<int64_t>(tap.first + static_cast<int64_t>(k), box.height - 1);
      const auto s = static_cast<size_t>(y % kTaps);
      int16_t* slot = slots.data() + s * slot_size;
      rows[k] = slot;
      if (tap.weight[k] == 0 || held[s] == y) continue;
      held[s] = y;
      const uint8_t* row = pixels.at(pixels.box.x, box.y + y);
      if (box.width >= kTaps) {
        kernels.row(row, columns, slot);
      } else {
        narrow_row(row + (box.x - pixels.box.x) * 3, box.width, columns, slot);
      }
    }
    kernels.blend(rows, tap.weight, row_values, out + static_cast<size_t>(r) * row_values);
  }
}

ResizeSpec resize_to_square(const Box& source, int64_t side, Interpolation interpolation) {
  ResizeSpec spec;
  spec.source = source;
  spec.full_width = spec.full_height = spec.window_width = spec.window_height = side;
  spec.interpolation = interpolation;
  return spec;
}

Box pixels_needed(const ResizeSpec& spec) {
  check(spec);
  if (spec.antialias) return spec.source;
  const Axis x(spec.source.width, spec.full_width, spec.interpolation);
  const Axis y(spec.source.height, spec.full_height, spec.interpolation);
  const auto begin = [](const Axis& axis, int64_t first) { return axis.tap(first).first; };
  const auto end = [](const Axis& axis, int64_t last, int64_t in) {
    return std::min(axis.tap(last).first + kTaps, in);
  };
  const int64_t x0 = begin(x, spec.window_x), y0 = begin(y, spec.window_y);
  return {spec.source.x + x0, spec.source.y + y0,
          end(x, spec.window_x + spec.window_width - 1, spec.source.width) - x0,
          end(y, spec.window_y + spec.window_height - 1, spec.source.height) - y0};
}

Resizer::Resizer(SimdLevel level) : impl_(std::make_unique<Impl>(level)) {
  NF_CHECK(level <= best_simd_level(), "this processor lacks the instructions");
}
Resizer::~Resizer() = default;

void Resizer::run(const PixelView& pixels, const ResizeSpec& spec, uint8_t* out) {
  NF_CHECK(contains(pixels.box, pixels_needed(spec)), "resize: box outside the image");
  const bool shrinks = spec.full_width < spec.source.width || spec.full_height < spec.source.height;
  if (spec.antialias && shrinks) {
    impl_->antialias.run(pixels, spec, out);
  } else {
    impl_->run(pixels, spec, out);
  }
}

void resize_rgb(const uint8_t* rgb, int64_t width, int64_t height, const ResizeSpec& spec,
                uint8_t* out) {
  NF_CHECK(contains({0, 0, width, height}, spec.source), "resize_rgb: box outside the image");
  Resizer().run({rgb, width * 3, {0, 0, width, height}}, spec, out);
}

}  // namespace nf::data

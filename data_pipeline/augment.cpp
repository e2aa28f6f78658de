// See augment.h.
#include "data_pipeline/augment.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "core/check.h"
#include "core/rng.h"

namespace nf::data {
namespace {

constexpr int kAttempts = 10;

// x in [-n, 2n) and beyond, mirrored at the borders without repeating them: -1 -> 1, n -> n - 2.
int64_t reflect(int64_t x, int64_t n) {
  if (n == 1) return 0;
  const int64_t period = 2 * (n - 1);
  x %= period;
  if (x < 0) x += period;
  return x < n ? x : period - x;
}

std::optional<Box> try_crop(const AugmentOptions& o, int64_t width, int64_t height,
                            PositionRng& rng) {
  const double area = static_cast<double>(width) * static_cast<double>(height);
  const double aspect = rng.uniform(o.ratio_min, o.ratio_max);
  const double min_area = o.scale_min * area, max_area = o.scale_max * area;
  const auto width_of = [aspect](int64_t h) {
    return static_cast<int64_t>(std::lrint(static_cast<double>(h) * aspect));
  };
  int64_t low = std::lrint(std::sqrt(min_area / aspect));
  int64_t high = std::lrint(std::sqrt(max_area / aspect));
  if (width_of(high) > width) {
    high = static_cast<int64_t>((static_cast<double>(width) + 0.5 - 1e-7) / aspect);
    if (width_of(high) > width) --high;
  }
  high = std::min(high, height);
  low = std::min(low, high);
  int64_t h = low;
  if (low < high) h += static_cast<int64_t>(rng.below(static_cast<uint64_t>(high - low + 1)));
  // Rounding may leave the area just outside: one pixel of height mends it.
  const auto area_of = [&](int64_t rows) {
    return static_cast<double>(rows) * static_cast<double>(width_of(rows));
  };
  if (area_of(h) < min_area) ++h;
  if (area_of(h) > max_area) --h;
  const int64_t w = width_of(h);
  if (area_of(h) < min_area || area_of(h) > max_area || w > width || h > height || w <= 0 ||
      h <= 0 || area_of(h) < o.min_covered * area) {
    return std::nullopt;
  }
  const auto x = static_cast<int64_t>(rng.below(static_cast<uint64_t>(width - w + 1)));
  const auto y = static_cast<int64_t>(rng.below(static_cast<uint64_t>(height - h + 1)));
  return Box{x, y, w, h};
}

Box padded_centre(const AugmentOptions& o, int64_t width, int64_t height) {
  const double fraction =
      static_cast<double>(o.image_size) / static_cast<double>(o.image_size + o.resize_margin);
  const int64_t side = std::max<int64_t>(
      1, static_cast<int64_t>(fraction * static_cast<double>(std::min(width, height))));
  return {(width - side + 1) / 2, (height - side + 1) / 2, side, side};
}

bool draw_flip(const AugmentOptions& o, PositionRng& rng) {
  const bool heads = (rng.next_u32() & 1) != 0;  // drawn even when unused: the crop is the same
  return heads && o.flip;
}

void random_padded(const PixelView& image, const AugmentOptions& o, PositionRng& rng, uint8_t* out,
                   LoadScratch& scratch) {
  const int64_t side = o.image_size;
  const uint8_t* source = image.rgb;
  int64_t stride = image.stride;
  if (image.box.width != side || image.box.height != side) {
    scratch.square.resize(static_cast<size_t>(side * side * 3));
    ResizeSpec spec = resize_to_square(image.box, side, o.interpolation);
    spec.antialias = o.antialias;
    scratch.resizer.run(image, spec, scratch.square.data());
    source = scratch.square.data();
    stride = side * 3;
  }
  const bool flip = draw_flip(o, rng);
  const uint64_t places = static_cast<uint64_t>(2 * o.padding + 1);
  const int64_t dx = static_cast<int64_t>(rng.below(places)) - o.padding;
  const int64_t dy = static_cast<int64_t>(rng.below(places)) - o.padding;
  scratch.columns.resize(static_cast<size_t>(side));
  for (int64_t x = 0; x < side; ++x)
    scratch.columns[static_cast<size_t>(x)] = reflect((flip ? side - 1 - x : x) + dx, side) * 3;
  for (int64_t y = 0; y < side; ++y) {
    const uint8_t* row = source + reflect(y + dy, side) * stride;
    for (const int64_t column : scratch.columns) {
      std::copy_n(row + column, 3, out);
      out += 3;
    }
  }
}

// The centre of the whole image, squashed to a square.
ResizeSpec centre(const AugmentOptions& o, const Box& whole) {
  ResizeSpec spec = resize_to_square(whole, o.image_size + o.resize_margin, o.interpolation);
  spec.window_width = spec.window_height = o.image_size;
  spec.window_x = spec.window_y = o.resize_margin / 2;
  return spec;
}

}  // namespace

CropDraw draw_crop(const AugmentOptions& options, int64_t width, int64_t height, uint64_t seed,
                   uint64_t position) {
  PositionRng rng(seed, Stream::kAugment, position);
  CropDraw draw;
  draw.flip = draw_flip(options, rng);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const auto box = try_crop(options, width, height, rng);
    if (!box) continue;
    if (box->width == width && box->height == height) break;
    draw.box = *box;
    return draw;
  }
  draw.box = padded_centre(options, width, height);
  return draw;
}

SampleFault load_image(std::span<const uint8_t> encoded, const AugmentOptions& options,
                       uint64_t seed, uint64_t position, uint8_t* out, LoadScratch& scratch) {
  NF_CHECK(options.image_size > 0 && options.padding >= 0 && options.resize_margin >= 0,
           "load_image: bad sizes");
  RegionDecoder& decoder = scratch.decoder;
  if (SampleFault fault = decoder.open(encoded); !fault.ok()) return fault;
  const Box whole{0, 0, decoder.width(), decoder.height()};
  PixelView view;
  if (options.crop == Crop::kRandomPadded) {
    if (SampleFault fault = decoder.decode(whole, view); !fault.ok()) return fault;
    PositionRng rng(seed, Stream::kAugment, position);
    random_padded(view, options, rng, out, scratch);
    return {};
  }
  ResizeSpec spec;
  if (options.crop == Crop::kCenter) {
    spec = centre(options, whole);
  } else {
    const CropDraw draw = draw_crop(options, whole.width, whole.height, seed, position);
    spec = resize_to_square(draw.box, options.image_size, options.interpolation);
    spec.flip = draw.flip;
  }
  spec.antialias = options.antialias;
  if (SampleFault fault = decoder.decode(pixels_needed(spec), view); !fault.ok()) return fault;
  scratch.resizer.run(view, spec, out);
  return {};
}

SampleFault load_image(std::span<const uint8_t> encoded, const AugmentOptions& options,
                       uint64_t seed, uint64_t position, uint8_t* out) {
  LoadScratch scratch;
  return load_image(encoded, options, seed, position, out, scratch);
}

}  // namespace nf::data

// Separable resize of 8-bit RGB in fixed point: integer arithmetic only, so the bits do not depend
// on the instruction set, the compiler or the number of threads. Coordinates are exact fractions
// with half-pixel centres and relative to the source box: a box gives what its cut-out alone would
// give, and no pixel outside it is read.
//
// Not antialiased unless asked for, as the NFNet recipe has it (TensorFlow 2: tf.image.resize,
// antialias = False). Bicubic is Keys' kernel with a = -0.5; taps beyond the border of the box have
// weight 0 and the rest is scaled to sum 1 (TensorFlow's rule; bilinear repeats the border pixel,
// which is the same thing there). With antialias the kernel is stretched by the factor of
// shrinking. Results are rounded and clamped to 0..255.
#pragma once

#include <cstdint>
#include <memory>

#include "data_pipeline/box.h"
#include "data_pipeline/resize_simd.h"

namespace nf::data {

enum class Interpolation { kBilinear, kBicubic };

// What to compute: the source box is resized to full_width x full_height; of that the window at
// (window_x, window_y) is written, mirrored left to right if flip.
struct ResizeSpec {
  Box source;
  int64_t full_width = 0, full_height = 0;
  int64_t window_x = 0, window_y = 0, window_width = 0, window_height = 0;
  bool flip = false;
  Interpolation interpolation = Interpolation::kBicubic;
  bool antialias = false;
};

// The whole of `source` to side x side.
ResizeSpec resize_to_square(const Box& source, int64_t side, Interpolation interpolation);

// The pixels that a resize reads: `source`, or less when the window is not the whole.
Box pixels_needed(const ResizeSpec& spec);

// Keeps its memory between images; one for each thread.
class Resizer {
 public:
  explicit Resizer(SimdLevel level = best_simd_level());
  ~Resizer();
  Resizer(const Resizer&) = delete;
  Resizer& operator=(const Resizer&) = delete;

  // `pixels` must hold pixels_needed(spec); out: [window_height, window_width, 3].
  void run(const PixelView& pixels, const ResizeSpec& spec, uint8_t* out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The same for a whole image, rgb: [height, width, 3]. The box must lie in it.
void resize_rgb(const uint8_t* rgb, int64_t width, int64_t height, const ResizeSpec& spec,
                uint8_t* out);

}  // namespace nf::data

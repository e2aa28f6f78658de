// Shrinks an image by averaging: each output pixel is the mean of the area it covers. All
// arithmetic is in integers, so the result is the same on every machine.
#pragma once

#include "data_pipeline/decode.h"

namespace nf::data {

// in and out must differ; 1 <= width <= in.width, 1 <= height <= in.height.
void resize_area(const Image& in, int width, int height, Image& out);

// The size with the shorter side `short_side` and the aspect ratio kept (longer side rounded to the
// nearest pixel); the size itself when the shorter side is not longer than that.
void size_with_short_side(int short_side, int& width, int& height);

}  // namespace nf::data

// Rectangles of pixels, and a look at the part of an image that is in memory.
#pragma once

#include <cstdint>

namespace nf::data {

struct Box {
  int64_t x = 0, y = 0, width = 0, height = 0;
};

inline bool contains(const Box& outer, const Box& inner) {
  return inner.x >= outer.x && inner.y >= outer.y &&
         inner.x + inner.width <= outer.x + outer.width &&
         inner.y + inner.height <= outer.y + outer.height;
}

// The pixels `box` of an image, 8-bit RGB, rows `stride` bytes apart. Does not own them.
struct PixelView {
  const uint8_t* rgb = nullptr;  // of (box.x, box.y)
  int64_t stride = 0;
  Box box;

  const uint8_t* at(int64_t x, int64_t y) const {
    return rgb + (y - box.y) * stride + (x - box.x) * 3;
  }
};

}  // namespace nf::data

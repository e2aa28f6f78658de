// Tiles of an image for Winograd's convolution F(2x2, 3x3): 2 x 2 outputs each, which see 4 x 4
// inputs.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

#include "core/vector_loop.h"
#include "models/nfnet/lanes.h"

namespace nf::model {

constexpr int64_t kPlanes = 16;  // values of a transformed tile
constexpr int64_t kKernel = 9;   // places of the kernel

// Images of height x width whose pixels lie `channels` elements apart.
struct TiledImages {
  explicit TiledImages(const at::Tensor& x)  // [B, C, H, W] in NHWC
      : count(x.size(0)), height(x.size(2)), width(x.size(3)), channels(x.size(1)) {}
  int64_t tiles() const { return count * ((height + 1) / 2) * ((width + 1) / 2); }
  int64_t count, height, width, channels;
};

// A tile by its first pixel; the last of a row or column may reach beyond the image.
struct TileAt {
  TileAt(const TiledImages& in, int64_t tile) {
    const int64_t down = (in.height + 1) / 2, right = (in.width + 1) / 2;
    image = tile / (down * right);
    row = 2 * (tile / right % down);
    column = 2 * (tile % right);
  }
  NF_INLINE void next(const TiledImages& in) {
    column += 2;
    if (column < in.width) return;
    column = 0;
    row += 2;
    if (row < in.height) return;
    row = 0;
    ++image;
  }
  NF_INLINE int64_t first_element(const TiledImages& in) const {
    return ((image * in.height + row) * in.width + column) * in.channels;
  }
  int64_t image, row, column;
};

// Where the kSide x kSide pixels lie that begin kBefore above and left of the tile; `beside` for
// those outside of the image, or for all where there is no such tile.
template <int kSide, int kBefore, class Source>
struct TilePixels {
  NF_INLINE void find(const TiledImages& in, const TileAt& tile, bool exists, const Source* x,
                      const Source* beside) {
    const Source* const first = exists ? x + tile.first_element(in) : beside;
#pragma GCC unroll 4
    for (int64_t i = 0; i < kSide; ++i) {
      const int64_t row = tile.row + i - kBefore;
      const bool in_rows = exists && row >= 0 && row < in.height;
#pragma GCC unroll 4
      for (int64_t j = 0; j < kSide; ++j) {
        const int64_t column = tile.column + j - kBefore;
        const int64_t step = ((i - kBefore) * in.width + j - kBefore) * in.channels;
        at[i][j] = in_rows && column >= 0 && column < in.width ? first + step : beside;
      }
    }
  }
  // 16 channels of each from `channel` on.
  NF_INLINE void load(int64_t channel, Lanes (&to)[kSide][kSide]) const {
#pragma GCC unroll 4
    for (int i = 0; i < kSide; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kSide; ++j) load_lanes(at[i][j] + channel, to[i][j]);
  }
  // Reads `count` channels of the tile's own 2 x 2 pixels ahead: narrow groups take a line of each
  // pixel at a time, which the processor does not foresee.
  NF_INLINE void prefetch(int64_t channel, int64_t count) const {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(Source));
    for (int64_t i = kBefore; i < kBefore + 2; ++i)
      for (int64_t j = kBefore; j < kBefore + 2; ++j)
        for (int64_t c = channel; c < channel + count; c += kLine) __builtin_prefetch(at[i][j] + c);
  }
  const Source* at[kSide][kSide];
};
template <class Source>
using TileInputs = TilePixels<4, 1, Source>;
template <class Source>
using TileOutputs = TilePixels<2, 0, Source>;

// Memory for tables and zeros from the tensors' allocator, which keeps it for the next step. Of
// types without constructors.
template <class T>
class TableMemory {
 public:
  explicit TableMemory(int64_t count)
      : memory_(at::empty({count * static_cast<int64_t>(sizeof(T))}, at::kByte)) {}
  T* data() const { return static_cast<T*>(memory_.mutable_data_ptr()); }

 private:
  at::Tensor memory_;
};

}  // namespace nf::model

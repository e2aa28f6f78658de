// Tiles of an image for Winograd's convolutions: Form::kOutputs x kOutputs outputs each, which see
// kInputs x kInputs inputs (winograd_maps.h).
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

#include "core/vector_loop.h"
#include "models/nfnet/lanes.h"
#include "models/nfnet/shared_for.h"
#include "models/nfnet/winograd_maps.h"

namespace nf::model {

constexpr int64_t kKernel = 9;  // places of the kernel
template <class Form>
constexpr int64_t kPlanes = Form::kInputs* Form::kInputs;  // values of a transformed tile

// Images of height x width whose pixels lie `channels` elements apart, in tiles of side x side.
struct TiledImages {
  TiledImages(const at::Tensor& x, int64_t tile_side)  // [B, C, H, W] in NHWC
      : count(x.size(0)),
        height(x.size(2)),
        width(x.size(3)),
        channels(x.size(1)),
        side(tile_side) {}
  int64_t down() const { return blocks_of(height, side); }
  int64_t right() const { return blocks_of(width, side); }
  int64_t tiles() const { return count * down() * right(); }
  int64_t count, height, width, channels, side;
};

// Whether 4 x 4 outputs at a time are worth it in float32: small images may leave much of such
// tiles empty.
inline bool four_by_four_is_faster(const at::Tensor& x) {
  const auto products = [&]<class Form>(Form) {
    return TiledImages(x, Form::kOutputs).tiles() * kPlanes<Form>;
  };
  return products(FourByFour{}) * 4 <= products(TwoByTwo{}) * 3;
}

// A tile by its first pixel; the last of a row or column may reach beyond the image.
struct TileAt {
  TileAt(const TiledImages& in, int64_t tile)
      : image(tile / (in.down() * in.right())),
        row(tile / in.right() % in.down() * in.side),
        column(tile % in.right() * in.side) {}
  NF_INLINE void next(const TiledImages& in) {
    column += in.side;
    if (column < in.width) return;
    column = 0;
    row += in.side;
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
#pragma GCC unroll 6
    for (int64_t i = 0; i < kSide; ++i) {
      const int64_t row = tile.row + i - kBefore;
      const bool in_rows = exists && row >= 0 && row < in.height;
#pragma GCC unroll 6
      for (int64_t j = 0; j < kSide; ++j) {
        const int64_t column = tile.column + j - kBefore;
        const int64_t step = ((i - kBefore) * in.width + j - kBefore) * in.channels;
        at[i][j] = in_rows && column >= 0 && column < in.width ? first + step : beside;
      }
    }
  }
  // 16 channels of a pixel from `channel` on.
  NF_INLINE void load(int64_t channel, int i, int j, Lanes& to) const {
    load_lanes(at[i][j] + channel, to);
  }
  const Source* at[kSide][kSide];
};
template <class Form, class Source>
using TileInputs = TilePixels<Form::kInputs, 1, Source>;
template <class Form, class Source>
using TileOutputs = TilePixels<Form::kOutputs, 0, Source>;

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

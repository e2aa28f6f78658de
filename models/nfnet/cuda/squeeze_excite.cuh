// The two passes over memory of a block's end (models/nfnet/squeeze_excite.cpp): sums over the
// pixels of each image and channel, and x * factor + added. On NHWC tensors sums go by parts of
// kPartRows pixels; on NCHW ones, where the pixels of an image and channel lie side by side as a
// row, kRowLanes threads share a row. Neither depends on the GPU: the same bits for any grid.
#pragma once

#include "core/host_device.h"

namespace nf::model {

constexpr int kPartRows = 256;  // pixels that a block sums
constexpr int kPartPacks = 32;  // neighbouring packs of channels of a block, one each in a warp
constexpr int kPartThreads = 256;
constexpr int kPartLanes = kPartThreads / kPartPacks;  // threads that share a pack's pixels
template <int kCount>
constexpr int kPartScratch = kPartThreads* kCount;  // floats
constexpr int kRowLanes = 32;                       // a warp
constexpr int kRowsOfBlock = kPartThreads / kRowLanes;

inline int64_t pixel_parts(int64_t pixels) {
  return pixels <= kPartRows ? 1 : (pixels + kPartRows - 1) / kPartRows;
}

template <class T>
struct PixelSums {
  const T* o;
  const T* other;  // null: the sums of o, else of o * other
  int64_t pixels, channels;
};

// sum[k] += the term of element at + k.
template <int kCount, class T>
NF_HOST_DEVICE void add_terms(const PixelSums<T>& in, int64_t at, float (&sum)[kCount]) {
  const Pack<T, kCount> x = load_pack<kCount>(in.o + at);
  if (in.other) {
    const Pack<T, kCount> y = load_pack<kCount>(in.other + at);
    for (int k = 0; k < kCount; ++k) sum[k] += load(x.at[k]) * load(y.at[k]);
  } else {
    for (int k = 0; k < kCount; ++k) sum[k] += load(x.at[k]);
  }
}

// to[c] = factor * sum over the part's pixels of image `image`, for the kPartPacks * kCount
// channels from pack number `pack` on.
template <int kCount, class Block, class T>
NF_HOST_DEVICE void sum_part(const Block& block, float* scratch, const PixelSums<T>& in,
                             int64_t image, int64_t part, int64_t pack, float factor, float* to) {
  static_assert(Block::kThreads == kPartThreads, "");
  const int64_t begin = part * kPartRows, rest = in.pixels - begin;
  const int64_t end = begin + (rest < kPartRows ? rest : kPartRows);
  const int64_t first = image * in.pixels * in.channels;
  block.each([&](int t) {
    float sum[kCount] = {};
    const int64_t c = (pack + t % kPartPacks) * kCount;
    for (int64_t r = begin + t / kPartPacks; c < in.channels && r < end; r += kPartLanes) {
      const int64_t at = first + r * in.channels + c;
      add_terms<kCount>(in, at, sum);
    }
    for (int k = 0; k < kCount; ++k) scratch[k * kPartThreads + t] = sum[k];
  });
  block.each([&](int t) {
    for (int column = t; column < kPartPacks * kCount; column += kPartThreads) {
      const int64_t c = pack * kCount + column;
      if (c >= in.channels) continue;
      const float* const lane = scratch + (column % kCount) * kPartThreads + column / kCount;
      double sum = 0;
      for (int l = 0; l < kPartLanes; ++l) sum += static_cast<double>(lane[l * kPartPacks]);
      to[c] = static_cast<float>(sum) * factor;
    }
  });
}

// factor * the sum of `parts` numbers, `stride` apart.
NF_HOST_DEVICE float sum_of_parts(const float* from, int64_t parts, int64_t stride, float factor) {
  double sum = 0;
  for (int64_t i = 0; i < parts; ++i) sum += static_cast<double>(from[i * stride]);
  return static_cast<float>(sum * static_cast<double>(factor));
}

// NCHW. to[row] = factor * sum over the pixels of the row (image * channels + channel), for the
// kRowsOfBlock rows from `first` on; pixels divide by kCount. scratch: kPartThreads floats.
template <int kCount, class Block, class T>
NF_HOST_DEVICE void sum_rows(const Block& block, float* scratch, const PixelSums<T>& in,
                             int64_t rows, int64_t first, float factor, float* to) {
  static_assert(Block::kThreads == kPartThreads, "");
  block.each([&](int t) {
    float sum[kCount] = {};
    const int64_t row = first + t / kRowLanes;
    for (int64_t p = (t % kRowLanes) * kCount; row < rows && p < in.pixels;
         p += kRowLanes * kCount) {
      const int64_t at = row * in.pixels + p;
      add_terms<kCount>(in, at, sum);
    }
    for (int k = 1; k < kCount; ++k) sum[0] += sum[k];
    scratch[t] = sum[0];
  });
  block.each([&](int t) {
    const int64_t row = first + t;
    if (t >= kRowsOfBlock || row >= rows) return;
    double sum = 0;
    for (int l = 0; l < kRowLanes; ++l) sum += static_cast<double>(scratch[t * kRowLanes + l]);
    to[row] = static_cast<float>(sum) * factor;
  });
}

template <class T>
struct ScaledSum {
  const T* x;
  const float* factor;             // [image, channel]
  const T* added;                  // like x, or null:
  const float* added_per_channel;  // [image, channel]
  T* out;
  int64_t pixels, channels;
};

// out = x * factor + added for pack number `pack` of image `image`; channels divide by kCount.
template <int kCount, class T>
NF_HOST_DEVICE void scaled_sum_pack(const ScaledSum<T>& s, int64_t image, uint32_t pack) {
  const auto packs = static_cast<uint32_t>(s.channels / kCount);
  const int64_t channel = image * s.channels + static_cast<int64_t>(pack % packs) * kCount;
  const int64_t at = image * s.pixels * s.channels + static_cast<int64_t>(pack) * kCount;
  const Pack<T, kCount> x = load_pack<kCount>(s.x + at);
  const Pack<float, kCount> f = load_pack<kCount>(s.factor + channel);
  Pack<T, kCount> out;
  if (s.added) {
    const Pack<T, kCount> more = load_pack<kCount>(s.added + at);
    for (int k = 0; k < kCount; ++k) store(out.at[k], load(x.at[k]) * f.at[k] + load(more.at[k]));
  } else {
    const Pack<float, kCount> more = load_pack<kCount>(s.added_per_channel + channel);
    for (int k = 0; k < kCount; ++k) store(out.at[k], load(x.at[k]) * f.at[k] + more.at[k]);
  }
  store_pack(s.out + at, out);
}

// NCHW. The same for pack number `pack` of all images, which may reach into the next row: pixels
// are at least kCount, and elements divide by it.
template <int kCount, class T>
NF_HOST_DEVICE void scaled_row_pack(const ScaledSum<T>& s, int64_t pack) {
  const int64_t at = pack * kCount, row = at / s.pixels;
  const int64_t in_row = (row + 1) * s.pixels - at;  // elements before the next row
  const int64_t next = in_row < kCount ? row + 1 : row;
  const Pack<T, kCount> x = load_pack<kCount>(s.x + at);
  const float f[2] = {s.factor[row], s.factor[next]};
  Pack<T, kCount> out;
  if (s.added) {
    const Pack<T, kCount> more = load_pack<kCount>(s.added + at);
    for (int k = 0; k < kCount; ++k)
      store(out.at[k], load(x.at[k]) * (k < in_row ? f[0] : f[1]) + load(more.at[k]));
  } else {
    const float more[2] = {s.added_per_channel[row], s.added_per_channel[next]};
    for (int k = 0; k < kCount; ++k)
      store(out.at[k],
            load(x.at[k]) * (k < in_row ? f[0] : f[1]) + (k < in_row ? more[0] : more[1]));
  }
  store_pack(s.out + at, out);
}

}  // namespace nf::model

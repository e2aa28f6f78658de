// See weight_gradient.h. A thread takes a unit: some outputs of a group over some pairs of images. It
// packs their channels itself, as many pairs at a time as its cache holds, and multiplies them for
// all places of the kernel; nothing that it packs is read by another.
#include "models/nfnet/weight_gradient.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "core/check.h"
#include "core/host_device.h"
#include "core/vector_loop.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace nf::model {
namespace {

constexpr int64_t kOutputs = 16, kInputs = 32;  // of a tile
constexpr int64_t kAtOnce = 8;                  // outputs of it, summed in registers
constexpr int64_t kTile = kOutputs * kInputs;
constexpr int64_t kPixels = 128;               // whose inputs stay in the first cache
constexpr int64_t kOutputBlocks = 16, kInputBlocks = 4;  // whose sums stay in the second cache
constexpr int64_t kPackedBytes = 2 << 20;                // at a time
constexpr int64_t kUnitsPerThread = 4;                   // or any multiple of the threads
constexpr uint32_t kSecond = 0xffff0000U;

int64_t blocks_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

// A tensor in NHWC, whose channels are packed in blocks.
struct Side {
  Side(const at::Tensor& from, int64_t groups, int64_t block_channels)
      : source(static_cast<const uint16_t*>(from.const_data_ptr())),
        images(from.size(0)),
        channels(from.size(1)),
        pixels(from.size(2) * from.size(3)),
        of_group(channels / groups),
        blocks(blocks_of(of_group, block_channels)) {}
  const uint16_t* source;
  int64_t images, channels, pixels, of_group, blocks;
};

// Some consecutive blocks of a group, some consecutive pairs.
struct Piece {
  int64_t group, first_block, blocks, first_pair, pairs;
};

constexpr int64_t kLanes = 16;
using Halves [[gnu::vector_size(kLanes * sizeof(uint16_t))]] = uint16_t;
using Words [[gnu::vector_size(kLanes * sizeof(uint32_t))]] = uint32_t;

NF_INLINE inline void pair_up(const uint16_t* a, const uint16_t* b, uint32_t* to) {
  Halves low, high;
  __builtin_memcpy(&low, a, sizeof low);
  __builtin_memcpy(&high, b, sizeof high);
  const Words both = __builtin_convertvector(low, Words) | __builtin_convertvector(high, Words) << 16;
  __builtin_memcpy(to, &both, sizeof both);
}

// -> [block][pixel of a pair][channel]: an element holds a pixel's value in both images of a pair.
// Zeros behind the last channel of a group and behind the last image.
template <int64_t kBlock>
void pack(const Side& s, const Piece& p, uint32_t* to) {
  const int64_t first = p.first_block * kBlock;
  const int64_t count = std::min(p.blocks * kBlock, s.of_group - first);
  const int64_t rows = p.pairs * s.pixels;
  const std::vector<uint16_t> zeros(static_cast<size_t>(count));
  const uint16_t* const beside = zeros.data();
  const uint16_t* const source = s.source + p.group * s.of_group + first;
  vector_loop([=, &s]() NF_INLINE {
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t image = 2 * (p.first_pair + row / s.pixels), pixel = row % s.pixels;
      const uint16_t* a = source + (image * s.pixels + pixel) * s.channels;
      const uint16_t* b = image + 1 < s.images ? a + s.pixels * s.channels : beside;
      uint32_t* out = to + row * kBlock;
      for (int64_t left = count; left > 0; left -= kBlock, out += rows * kBlock) {
        if (left >= kBlock)
          for (int64_t c = 0; c < kBlock; c += kLanes) pair_up(a + c, b + c, out + c);
        else
          for (int64_t c = 0; c < kBlock; ++c)
            out[c] = c < left ? a[c] | uint32_t{b[c]} << 16 : 0;
        a += kBlock;
        b += kBlock;
      }
    }
  });
}

// Pixels that lie side by side in g, and in x too, `stride` apart.
struct Run {
  int64_t g, x, count;  // the first ones' rows
};
using Runs = std::span<const Run>;

// c[o][i] (+)= sum over the runs of g[o] . x[i], where . multiplies both values and adds.
using Tile = void (*)(const uint32_t* g, const uint32_t* x, Runs runs, int64_t stride, bool add,
                      float* c);

void tile_anywhere(const uint32_t* g, const uint32_t* x, Runs runs, int64_t stride, bool add,
                   float* c) {
  vector_loop([=]() NF_INLINE {
    for (int64_t o = 0; o < kOutputs; ++o) {
      float sums[kInputs] = {};
      for (size_t run = 0; run < runs.size(); ++run)
        for (int64_t k = 0; k < runs[run].count; ++k) {
          const uint32_t w = g[(runs[run].g + k) * kOutputs + o];
          const uint32_t* const v = x + (runs[run].x + k * stride) * kInputs;
          const float first = bits_as<float>(w << 16), second = bits_as<float>(w & kSecond);
          for (int64_t i = 0; i < kInputs; ++i) {
            sums[i] += second * bits_as<float>(v[i] & kSecond);
            sums[i] += first * bits_as<float>(v[i] << 16);
          }
        }
      float* const to = c + o * kInputs;
      for (int64_t i = 0; i < kInputs; ++i) to[i] = add ? to[i] + sums[i] : sums[i];
    }
  });
}

#if defined(__x86_64__) && defined(__GNUC__)
[[gnu::target("avx512f,avx512bf16")]] void tile_avx512_bf16(const uint32_t* g, const uint32_t* x,
                                                            Runs runs, int64_t stride, bool add,
                                                            float* c) {
  for (int64_t first = 0; first < kOutputs; first += kAtOnce) {
    __m512 sums[kAtOnce][2];
#pragma GCC unroll 8
    for (int64_t o = 0; o < kAtOnce; ++o) sums[o][0] = sums[o][1] = _mm512_setzero_ps();
    for (const Run& run : runs) {
      const uint32_t* w = g + run.g * kOutputs + first;
      const uint32_t* v = x + run.x * kInputs;
      for (int64_t k = 0; k < run.count; ++k, w += kOutputs, v += stride * kInputs) {
        const auto left = reinterpret_cast<__m512bh>(_mm512_loadu_si512(v));
        const auto right = reinterpret_cast<__m512bh>(_mm512_loadu_si512(v + 16));
#pragma GCC unroll 8
        for (int64_t o = 0; o < kAtOnce; ++o) {
          const auto both = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(w[o])));
          sums[o][0] = _mm512_dpbf16_ps(sums[o][0], both, left);
          sums[o][1] = _mm512_dpbf16_ps(sums[o][1], both, right);
        }
      }
    }
#pragma GCC unroll 8
    for (int64_t o = 0; o < kAtOnce; ++o)
      for (int64_t half = 0; half < 2; ++half) {
        float* const to = c + (first + o) * kInputs + half * 16;
        const __m512 sum = sums[o][half];
        _mm512_storeu_ps(to, add ? _mm512_add_ps(_mm512_loadu_ps(to), sum) : sum);
      }
  }
}
bool multiplies_pairs() { return __builtin_cpu_supports("avx512bf16"); }
bool multiplies_tiles() { return __builtin_cpu_supports("amx-bf16"); }
Tile best_tile() { return multiplies_pairs() ? tile_avx512_bf16 : tile_anywhere; }
#else
bool multiplies_pairs() { return false; }
bool multiplies_tiles() { return false; }
Tile best_tile() { return tile_anywhere; }
#endif

// The runs of a place of the kernel, in blocks of at most kPixels: the image's border cuts them.
struct PlaceRuns {
  std::vector<Run> runs;
  std::vector<size_t> ends;  // of the blocks
};

// Positions of the result, of `count`, whose input stride q + offset lies within [0, size).
std::pair<int64_t, int64_t> inside(int64_t count, int64_t size, int64_t stride, int64_t offset) {
  const int64_t first = offset < 0 ? blocks_of(-offset, stride) : 0;
  const int64_t end = size > offset ? blocks_of(size - offset, stride) : 0;
  return {first, std::max(first, std::min(count, end))};
}

PlaceRuns runs_of(const at::Tensor& x, const at::Tensor& g, const ConvShape& shape, int64_t r,
                  int64_t s, int64_t pairs) {
  const int64_t height = x.size(2), width = x.size(3), p = g.size(2), q = g.size(3);
  const int64_t down = r - shape.padding_h, right = s - shape.padding_w;
  const auto [first_row, end_row] = inside(p, height, shape.stride, down);
  const auto [first, end] = inside(q, width, shape.stride, right);
  PlaceRuns out;
  int64_t in_block = 0;
  const auto add = [&](Run run) {
    if (run.count == 0) return;
    if (in_block + run.count > kPixels && in_block > 0) {
      out.ends.push_back(out.runs.size());
      in_block = 0;
    }
    Run* const last = out.runs.empty() || in_block == 0 ? nullptr : &out.runs.back();
    if (last != nullptr && last->g + last->count == run.g &&
        last->x + last->count * shape.stride == run.x)
      last->count += run.count;
    else
      out.runs.push_back(run);
    in_block += run.count;
  };
  for (int64_t pair = 0; pair < pairs; ++pair)
    for (int64_t row = first_row; row < end_row; ++row)
      for (int64_t at = first; at < end; at += kPixels)
        add({.g = (pair * p + row) * q + at,
             .x = (pair * height + row * shape.stride + down) * width + at * shape.stride + right,
             .count = std::min(kPixels, end - at)});
  out.ends.push_back(out.runs.size());
  return out;
}

// sums[o] += both values of the output in all rows.
void add_rows(const uint32_t* g, int64_t rows, float* sums) {
  vector_loop([=]() NF_INLINE {
    constexpr int64_t kTogether = 2 * kOutputs;
    float part[kTogether] = {};
    const int64_t n = rows * kOutputs, whole = n / kTogether * kTogether;
    for (int64_t i = 0; i < whole; i += kTogether)
      for (int64_t l = 0; l < kTogether; ++l)
        part[l] += bits_as<float>(g[i + l] << 16) + bits_as<float>(g[i + l] & kSecond);
    for (int64_t i = whole; i < n; ++i)
      part[i - whole] += bits_as<float>(g[i] << 16) + bits_as<float>(g[i] & kSecond);
    for (int64_t o = 0; o < kOutputs; ++o) sums[o] += part[o] + part[o + kOutputs];
  });
}

uint16_t* elements(const at::Tensor& x) { return static_cast<uint16_t*>(x.mutable_data_ptr()); }

// Some consecutive blocks of a group's outputs over a part of the pairs.
struct Unit {
  int64_t group, output, outputs, part, first_pair, pairs;
};

class Product {
 public:
  Product(const at::Tensor& x, const at::Tensor& g, int64_t kernel_h, int64_t kernel_w,
          const ConvShape& shape, const WeightGradient& out)
      : tensor_x_(x),
        tensor_g_(g),
        shape_(shape),
        kernel_w_(kernel_w),
        places_(kernel_h * kernel_w),
        x_(x, shape.groups, kInputs),
        g_(g, shape.groups, kOutputs),
        pairs_(blocks_of(x.size(0), 2)),
        // Of one group two threads share the pairs, so that neither packs what the other does too.
        // Whatever the number of threads: sums of two parts have other bits than those of one.
        parts_(shape.groups == 1 && pairs_ > 1 ? 2 : 1),
        weight_(elements(out.weight)),
        bias_(elements(out.bias)) {
    const int64_t threads = at::get_num_threads();
    const auto uneven = [&] {
      return units() % threads != 0 && units() < kUnitsPerThread * threads;
    };
    while (uneven() && slices_ < g_.blocks) ++slices_;
    const int64_t pair_bytes =
        4 * (x_.pixels * x_.blocks * kInputs + g_.pixels * slice() * kOutputs);
    pairs_at_once_ = std::clamp<int64_t>(kPackedBytes / pair_bytes, 1, blocks_of(pairs_, parts_));
    for (int64_t i = 0; i < places_; ++i)
      runs_.push_back(runs_of(x, g, shape, i / kernel_w_, i % kernel_w_, pairs_at_once_));
  }

  void run() {
    const int64_t of_unit = slice() * (places_ * x_.blocks * kTile + kOutputs);
    std::vector<Sums> sums(static_cast<size_t>(units()));
    at::parallel_for(0, units(), 1, [&](int64_t begin, int64_t end) {
      Scratch scratch(*this);
      for (int64_t i = begin; i < end; ++i) {
        auto& to = sums[static_cast<size_t>(i)];
        to = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(of_unit));
        sum(unit(i), scratch, to.get());
        if (parts_ > 1) continue;
        write(unit(i), to.get(), nullptr);
        to.reset();
      }
    });
    if (parts_ == 1) return;
    at::parallel_for(0, units() / 2, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        write(unit(i), sums[static_cast<size_t>(i)].get(),
              sums[static_cast<size_t>(i + units() / 2)].get());
    });
  }

 private:
  using Sums = std::unique_ptr<float[]>;

  int64_t slice() const { return blocks_of(g_.blocks, slices_); }
  int64_t units() const { return parts_ * shape_.groups * blocks_of(g_.blocks, slice()); }

  Unit unit(int64_t index) const {
    const int64_t slices = blocks_of(g_.blocks, slice());
    Unit u{};
    u.output = index % slices * slice();
    u.outputs = std::min(slice(), g_.blocks - u.output);
    u.group = index / slices % shape_.groups;
    u.part = index / slices / shape_.groups;
    u.first_pair = u.part * blocks_of(pairs_, parts_);
    u.pairs = std::min(blocks_of(pairs_, parts_), pairs_ - u.first_pair);
    return u;
  }

  struct Scratch {
    explicit Scratch(const Product& p)
        : x(std::make_unique_for_overwrite<uint32_t[]>(static_cast<size_t>(
              p.pairs_at_once_ * p.x_.pixels * p.x_.blocks * kInputs))),
          g(std::make_unique_for_overwrite<uint32_t[]>(
              static_cast<size_t>(p.pairs_at_once_ * p.g_.pixels * p.slice() * kOutputs))) {}
    std::unique_ptr<uint32_t[]> x, g;
  };

  // sums [place][block of inputs][block of outputs][tile], then [output] for the bias.
  float* tile_of(float* sums, const Unit& u, int64_t place, int64_t input, int64_t output) const {
    return sums + ((place * x_.blocks + input) * u.outputs + output) * kTile;
  }

  void sum(const Unit& u, Scratch& scratch, float* sums) const {
    float* const bias = tile_of(sums, u, places_, 0, 0);
    std::fill_n(bias, u.outputs * kOutputs, 0.0F);
    for (int64_t done = 0; done < u.pairs; done += pairs_at_once_) {
      const int64_t pairs = std::min(pairs_at_once_, u.pairs - done);
      const int64_t first = u.first_pair + done, rows = pairs * g_.pixels;
      pack<kInputs>(x_, {u.group, 0, x_.blocks, first, pairs}, scratch.x.get());
      pack<kOutputs>(g_, {u.group, u.output, u.outputs, first, pairs}, scratch.g.get());
      for (int64_t place = 0; place < places_; ++place)
        multiply(u, place, pairs, done > 0, scratch, sums);
      for (int64_t o = 0; o < u.outputs; ++o)
        add_rows(scratch.g.get() + o * rows * kOutputs, rows, bias + o * kOutputs);
    }
  }

  void multiply(const Unit& u, int64_t place, int64_t pairs, bool add, const Scratch& scratch,
                float* sums) const {
    const PlaceRuns last = pairs == pairs_at_once_ ? PlaceRuns{} : runs(place, pairs);
    const PlaceRuns& all = pairs == pairs_at_once_ ? runs_[static_cast<size_t>(place)] : last;
    const int64_t plane_x = pairs * x_.pixels * kInputs, plane_g = pairs * g_.pixels * kOutputs;
    const Tile tile = best_tile();
    for (int64_t out = 0; out < u.outputs; out += kOutputBlocks)
      for (int64_t in = 0; in < x_.blocks; in += kInputBlocks) {
        size_t from = 0;
        for (const size_t to : all.ends) {
          const Runs runs = Runs(all.runs).subspan(from, to - from);
          for (int64_t i = in; i < std::min(in + kInputBlocks, x_.blocks); ++i)
            for (int64_t o = out; o < std::min(out + kOutputBlocks, u.outputs); ++o)
              tile(scratch.g.get() + o * plane_g, scratch.x.get() + i * plane_x, runs,
                   shape_.stride, add || from > 0, tile_of(sums, u, place, i, o));
          from = to;
        }
      }
  }

  PlaceRuns runs(int64_t place, int64_t pairs) const {
    return runs_of(tensor_x_, tensor_g_, shape_, place / kernel_w_, place % kernel_w_, pairs);
  }

  // Rounds the sums, those of the second part added where there is one.
  void write(const Unit& u, const float* sums, const float* second) const {
    const int64_t of_weight = places_ * x_.blocks * u.outputs * kTile;
    const auto sum_at = [=](int64_t i) NF_INLINE {
      return second == nullptr ? sums[i] : sums[i] + second[i];
    };
    for (int64_t output = 0; output < u.outputs; ++output) {
      const int64_t in_group = (u.output + output) * kOutputs;
      const int64_t outputs = std::min(kOutputs, g_.of_group - in_group);
      uint16_t* const bias = bias_ + u.group * g_.of_group + in_group;
      for (int64_t o = 0; o < outputs; ++o) store(bias[o], sum_at(of_weight + output * kOutputs + o));
    }
    vector_loop([=, this, &u]() NF_INLINE {
      for (int64_t at = 0; at < places_ * x_.blocks * u.outputs; ++at) {
        const int64_t output = at % u.outputs, input = at / u.outputs % x_.blocks;
        const int64_t place = at / u.outputs / x_.blocks, in_group = (u.output + output) * kOutputs;
        const int64_t inputs = std::min(kInputs, x_.of_group - input * kInputs);
        for (int64_t o = 0; o < std::min(kOutputs, g_.of_group - in_group); ++o) {
          const int64_t row = (u.group * g_.of_group + in_group + o) * places_ + place;
          uint16_t* const to = weight_ + row * x_.of_group + input * kInputs;
          const int64_t from = at * kTile + o * kInputs;
          if (inputs == kInputs)
            for (int64_t i = 0; i < kInputs; ++i) store(to[i], sum_at(from + i));
          else
            for (int64_t i = 0; i < inputs; ++i) store(to[i], sum_at(from + i));
        }
      }
    });
  }

  const at::Tensor &tensor_x_, &tensor_g_;
  ConvShape shape_;
  int64_t kernel_w_, places_;
  Side x_, g_;
  int64_t pairs_, parts_, slices_ = 1, pairs_at_once_ = 1;
  uint16_t *weight_, *bias_;
  std::vector<PlaceRuns> runs_;  // of a place, for pairs_at_once_
};

}  // namespace

bool weight_gradient_is_faster(const at::Tensor& x, const at::Tensor& weight, int64_t groups) {
  const int64_t images = x.size(0), pixels = images * x.size(2) * x.size(3);
  return x.is_cpu() && x.scalar_type() == at::kBFloat16 && multiplies_pairs() &&
         !multiplies_tiles() && (images % 4 == 0 || images >= 8) &&
         weight.size(1) >= kInputs && weight.size(0) / groups >= kOutputs &&
         (weight.size(2) * weight.size(3) > 1 || weight.numel() <= 128 * pixels);
}

WeightGradient weight_gradient(const at::Tensor& x, const at::Tensor& g, int64_t kernel_h,
                               int64_t kernel_w, const ConvShape& shape) {
  for (const at::Tensor& t : {x, g})
    NF_CHECK(t.is_cpu() && t.scalar_type() == at::kBFloat16 &&
             t.is_contiguous(at::MemoryFormat::ChannelsLast) && t.size(1) % shape.groups == 0);
  NF_CHECK(x.size(0) == g.size(0));
  const at::TensorOptions nhwc = g.options().memory_format(at::MemoryFormat::ChannelsLast);
  WeightGradient out{
      .weight = at::empty({g.size(1), x.size(1) / shape.groups, kernel_h, kernel_w}, nhwc),
      .bias = at::empty({g.size(1)}, g.options())};
  Product(x, g, kernel_h, kernel_w, shape, out).run();
  return out;
}

}  // namespace nf::model

// See weight_gradient.h. A thread takes a unit: some outputs of a group over some sets of images
// (two in bfloat16). It packs their channels itself, as many sets at a time as its cache holds, and
// multiplies them for all places of the kernel; nothing that it packs is read by another.
#include "models/nfnet/weight_gradient.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/vector_loop.h"
#include "models/nfnet/processor.h"
#include "models/nfnet/shared_for.h"
#include "models/nfnet/weight_tile.h"

namespace nf::model {
namespace {

constexpr int64_t kPixels = 128;                         // whose inputs stay in the first cache
constexpr int64_t kOutputBlocks = 16, kInputBlocks = 4;  // whose sums stay in the second cache
constexpr int64_t kPackedBytes = 1 << 19;                // at a time
constexpr int64_t kPartBytes = 1 << 20, kMostParts = 8;  // of the sums of one group
constexpr int64_t kUnitsPerThread = 4;                   // or any multiple of the threads

// A tensor in NHWC, whose channels are packed in blocks.
template <class Type>
struct Side {
  Side(const at::Tensor& from, int64_t groups, int64_t block_channels)
      : source(static_cast<const typename Type::Source*>(from.const_data_ptr())),
        images(from.size(0)),
        channels(from.size(1)),
        pixels(from.size(2) * from.size(3)),
        of_group(channels / groups),
        blocks(blocks_of(of_group, block_channels)) {}
  const typename Type::Source* source;
  int64_t images, channels, pixels, of_group, blocks;
};

// Some consecutive blocks of a group, some consecutive sets of Type::kImages images.
struct Piece {
  int64_t group, first_block, blocks, first_set, sets;
};

// -> [block][pixel of a set][channel]. Zeros behind the last channel of a group and behind the last
// image.
template <class Type, int64_t kBlock>
void pack(const Side<Type>& s, const Piece& p, typename Type::Element* to) {
  const int64_t first = p.first_block * kBlock;
  const int64_t count = std::min(p.blocks * kBlock, s.of_group - first);
  const int64_t rows = p.sets * s.pixels;
  const std::vector<typename Type::Source> zeros(static_cast<size_t>(count));
  const auto* const beside = zeros.data();
  const auto* const source = s.source + p.group * s.of_group + first;
  vector_loop([=, &s]() NF_INLINE {
    auto* row = to;
    for (int64_t set = 0; set < p.sets; ++set) {
      const int64_t image = Type::kImages * (p.first_set + set);
      const typename Type::Source* from[Type::kImages];
      int64_t step[Type::kImages];
      for (int64_t i = 0; i < Type::kImages; ++i) {
        const bool exists = image + i < s.images;
        from[i] = exists ? source + (image + i) * s.pixels * s.channels : beside;
        step[i] = exists ? s.channels : 0;
      }
      for (int64_t pixel = 0; pixel < s.pixels; ++pixel, row += kBlock) {
        auto* out = row;
        int64_t c = 0;
        for (; c + kBlock <= count; c += kBlock, out += rows * kBlock)
          for (int64_t l = 0; l < kBlock; l += kTileLanes) Type::together(from, c + l, out + l);
        if (c < count)
          for (int64_t l = 0; l < kBlock; ++l)
            out[l] = c + l < count ? Type::together(from, c + l) : typename Type::Element{};
        for (int64_t i = 0; i < Type::kImages; ++i) from[i] += step[i];
      }
    }
  });
}

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
                  int64_t s, int64_t sets) {
  const int64_t height = x.size(2), width = x.size(3), p = g.size(2), q = g.size(3);
  const int64_t down = r - shape.padding_h, right = s - shape.padding_w;
  const auto [first_row, end_row] = inside(p, height, shape.stride, down);
  const auto [first, end] = inside(q, width, shape.stride, right);
  PlaceRuns out;
  out.runs.reserve(static_cast<size_t>(sets * (end_row - first_row)));
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
  if (shape.stride == 1 && p == height && q == width && down == 0 && right == 0) {
    const int64_t all = sets * p * q;  // side by side in both
    for (int64_t at = 0; at < all; at += kPixels)
      add({.g = at, .x = at, .count = std::min(kPixels, all - at)});
    out.ends.push_back(out.runs.size());
    return out;
  }
  for (int64_t set = 0; set < sets; ++set)
    for (int64_t row = first_row; row < end_row; ++row)
      for (int64_t at = first; at < end; at += kPixels)
        add({.g = (set * p + row) * q + at,
             .x = (set * height + row * shape.stride + down) * width + at * shape.stride + right,
             .count = std::min(kPixels, end - at)});
  out.ends.push_back(out.runs.size());
  return out;
}

// sums[o] += all values of the output in all rows.
template <class Type>
void add_rows(const typename Type::Element* g, int64_t rows, float* sums) {
  vector_loop([=]() NF_INLINE {
    constexpr int64_t kTogether = 2 * kTileOutputs;
    float part[kTogether] = {};
    const int64_t n = rows * kTileOutputs, whole = n / kTogether * kTogether;
    for (int64_t i = 0; i < whole; i += kTogether)
      for (int64_t l = 0; l < kTogether; ++l) part[l] += Type::sum(g[i + l]);
    for (int64_t i = whole; i < n; ++i) part[i - whole] += Type::sum(g[i]);
    for (int64_t o = 0; o < kTileOutputs; ++o) sums[o] += part[o] + part[o + kTileOutputs];
  });
}

// Some consecutive blocks of a group's outputs over a part of the sets.
struct Unit {
  int64_t group, output, outputs, part, first_set, sets;
};

template <class Type>
class Product {
 public:
  using Source = typename Type::Source;
  using Element = typename Type::Element;
  static constexpr int64_t kInputs = Type::kInputs, kTile = kTileOutputs * kInputs;

  Product(const at::Tensor& x, const at::Tensor& g, int64_t kernel_h, int64_t kernel_w,
          const ConvShape& shape, const WeightGradient& out)
      : tensor_x_(x),
        tensor_g_(g),
        shape_(shape),
        kernel_w_(kernel_w),
        places_(kernel_h * kernel_w),
        x_(x, shape.groups, kInputs),
        g_(g, shape.groups, kTileOutputs),
        sets_(blocks_of(x.size(0), Type::kImages)),
        weight_(static_cast<Source*>(out.weight.mutable_data_ptr())),
        bias_(static_cast<Source*>(out.bias.mutable_data_ptr())) {
    // Of one group threads share the images, so that none packs what another does too. As many
    // parts for any number of threads: they are the order of the sums.
    if (shape.groups == 1)
      parts_ = std::clamp<int64_t>(kPartBytes / (4 * unit_sums()), 2, kMostParts);
    parts_ = blocks_of(sets_, blocks_of(sets_, parts_));  // none of them empty
    const int64_t threads = at::get_num_threads();
    const auto uneven = [&] {
      return units() % threads != 0 && units() < kUnitsPerThread * threads;
    };
    while (uneven() && slices_ < g_.blocks) ++slices_;
    // As many, too, for any number of threads.
    const int64_t set_bytes =
        4 * (x_.pixels * x_.blocks * kInputs + g_.pixels * g_.blocks * kTileOutputs);
    sets_at_once_ = std::clamp<int64_t>(kPackedBytes / set_bytes, 1, blocks_of(sets_, parts_));
    for (int64_t i = 0; i < places_; ++i)
      runs_.push_back(runs_of(x, g, shape, i / kernel_w_, i % kernel_w_, sets_at_once_));
  }

  void run() {
    // From the caller's thread, whose allocator keeps memory.
    const int64_t of_unit = unit_sums();
    const int64_t of_x = sets_at_once_ * x_.pixels * x_.blocks * kInputs;
    const int64_t of_g = sets_at_once_ * g_.pixels * slice() * kTileOutputs;
    const int64_t threads = at::get_num_threads();
    const int64_t buffers = parts_ > 1 ? units() : threads;
    const at::Tensor memory = at::empty({threads * (of_x + of_g) + buffers * of_unit}, at::kFloat);
    auto* const scratch = memory.mutable_data_ptr<float>();
    float* const sums = scratch + threads * (of_x + of_g);
    shared_for(units(), 1, [&](int64_t begin, int64_t end) {
      const int64_t thread = at::get_thread_num();
      auto* const x = reinterpret_cast<Element*>(scratch + thread * (of_x + of_g));
      for (int64_t i = begin; i < end; ++i) {
        float* const to = sums + (parts_ > 1 ? i : thread) * of_unit;
        sum(unit(i), {x, x + of_x}, to);
        if (parts_ == 1) write(unit(i), to);
      }
    });
    if (parts_ == 1) return;
    add_parts(sums, part_units() * of_unit, parts_);
    shared_for(part_units(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) write(unit(i), sums + i * of_unit);
    });
  }

 private:
  int64_t slice() const { return blocks_of(g_.blocks, slices_); }
  int64_t part_units() const { return shape_.groups * blocks_of(g_.blocks, slice()); }
  int64_t units() const { return parts_ * part_units(); }
  int64_t unit_sums() const { return slice() * (places_ * x_.blocks * kTile + kTileOutputs); }

  Unit unit(int64_t index) const {
    const int64_t slices = blocks_of(g_.blocks, slice());
    Unit u{};
    u.output = index % slices * slice();
    u.outputs = std::min(slice(), g_.blocks - u.output);
    u.group = index / slices % shape_.groups;
    u.part = index / slices / shape_.groups;
    u.first_set = u.part * blocks_of(sets_, parts_);
    u.sets = std::min(blocks_of(sets_, parts_), sets_ - u.first_set);
    return u;
  }

  struct Scratch {
    Element *x, *g;
  };

  // sums [place][block of inputs][block of outputs][tile], then [output] for the bias.
  float* tile_of(float* sums, const Unit& u, int64_t place, int64_t input, int64_t output) const {
    return sums + ((place * x_.blocks + input) * u.outputs + output) * kTile;
  }

  void sum(const Unit& u, const Scratch& scratch, float* sums) const {
    float* const bias = tile_of(sums, u, places_, 0, 0);
    std::fill_n(bias, u.outputs * kTileOutputs, 0.0F);
    for (int64_t done = 0; done < u.sets; done += sets_at_once_) {
      const int64_t sets = std::min(sets_at_once_, u.sets - done);
      const int64_t first = u.first_set + done, rows = sets * g_.pixels;
      pack<Type, kInputs>(x_, {u.group, 0, x_.blocks, first, sets}, scratch.x);
      pack<Type, kTileOutputs>(g_, {u.group, u.output, u.outputs, first, sets}, scratch.g);
      for (int64_t place = 0; place < places_; ++place)
        multiply(u, place, sets, done > 0, scratch, sums);
      for (int64_t o = 0; o < u.outputs; ++o)
        add_rows<Type>(scratch.g + o * rows * kTileOutputs, rows, bias + o * kTileOutputs);
    }
  }

  void multiply(const Unit& u, int64_t place, int64_t sets, bool add, const Scratch& scratch,
                float* sums) const {
    const PlaceRuns last = sets == sets_at_once_ ? PlaceRuns{} : runs(place, sets);
    const PlaceRuns& all = sets == sets_at_once_ ? runs_[static_cast<size_t>(place)] : last;
    const int64_t plane_x = sets * x_.pixels * kInputs, plane_g = sets * g_.pixels * kTileOutputs;
    for (int64_t out = 0; out < u.outputs; out += kOutputBlocks)
      for (int64_t in = 0; in < x_.blocks; in += kInputBlocks) {
        size_t from = 0;
        for (const size_t to : all.ends) {
          const Runs runs = Runs(all.runs).subspan(from, to - from);
          for (int64_t i = in; i < std::min(in + kInputBlocks, x_.blocks); ++i)
            for (int64_t o = out; o < std::min(out + kOutputBlocks, u.outputs); ++o)
              Type::multiply(scratch.g + o * plane_g, scratch.x + i * plane_x, runs, shape_.stride,
                             add || from > 0, tile_of(sums, u, place, i, o));
          from = to;
        }
      }
  }

  PlaceRuns runs(int64_t place, int64_t sets) const {
    return runs_of(tensor_x_, tensor_g_, shape_, place / kernel_w_, place % kernel_w_, sets);
  }

  void write(const Unit& u, const float* sums) const {
    const int64_t of_weight = places_ * x_.blocks * u.outputs * kTile;
    for (int64_t output = 0; output < u.outputs; ++output) {
      const int64_t in_group = (u.output + output) * kTileOutputs;
      const int64_t outputs = std::min(kTileOutputs, g_.of_group - in_group);
      Source* const bias = bias_ + u.group * g_.of_group + in_group;
      for (int64_t o = 0; o < outputs; ++o)
        store(bias[o], sums[of_weight + output * kTileOutputs + o]);
    }
    vector_loop([=, this, &u]() NF_INLINE {
      for (int64_t at = 0; at < places_ * x_.blocks * u.outputs; ++at) {
        const int64_t output = at % u.outputs, input = at / u.outputs % x_.blocks;
        const int64_t place = at / u.outputs / x_.blocks,
                      in_group = (u.output + output) * kTileOutputs;
        const int64_t inputs = std::min(kInputs, x_.of_group - input * kInputs);
        for (int64_t o = 0; o < std::min(kTileOutputs, g_.of_group - in_group); ++o) {
          const int64_t row = (u.group * g_.of_group + in_group + o) * places_ + place;
          Source* const to = weight_ + row * x_.of_group + input * kInputs;
          const int64_t from = at * kTile + o * kInputs;
          if (inputs == kInputs)
            for (int64_t i = 0; i < kInputs; ++i) store(to[i], sums[from + i]);
          else
            for (int64_t i = 0; i < inputs; ++i) store(to[i], sums[from + i]);
        }
      }
    });
  }

  const at::Tensor &tensor_x_, &tensor_g_;
  ConvShape shape_;
  int64_t kernel_w_, places_;
  Side<Type> x_, g_;
  int64_t sets_, parts_ = 1, slices_ = 1, sets_at_once_ = 1;
  Source *weight_, *bias_;
  std::vector<PlaceRuns> runs_;  // of a place, for sets_at_once_
};

}  // namespace

bool weight_gradient_is_faster(const at::Tensor& x, const at::Tensor& weight, int64_t groups) {
  if (!x.is_cpu()) return false;
  const int64_t images = x.size(0), pixels = images * x.size(2) * x.size(3);
  const bool few_weights = weight.size(2) * weight.size(3) > 1 || weight.numel() <= 128 * pixels;
  if (x.scalar_type() == at::kFloat)
    return has_avx512() && !is_intel() && images % 2 == 0 && weight.size(1) >= Float32::kInputs &&
           weight.size(0) / groups >= kTileOutputs && few_weights;
  return x.scalar_type() == at::kBFloat16 && has_avx512_bf16() && !has_amx_bf16() &&
         (images % 4 == 0 || images >= 8) && weight.size(1) >= Bfloat16::kInputs &&
         weight.size(0) / groups >= kTileOutputs && few_weights;
}

WeightGradient weight_gradient(const at::Tensor& x, const at::Tensor& g, int64_t kernel_h,
                               int64_t kernel_w, const ConvShape& shape) {
  for (const at::Tensor& t : {x, g})
    NF_CHECK(t.is_cpu() && t.is_contiguous(at::MemoryFormat::ChannelsLast) &&
             t.size(1) % shape.groups == 0);
  NF_CHECK(x.size(0) == g.size(0) && x.scalar_type() == g.scalar_type());
  const at::TensorOptions nhwc = g.options().memory_format(at::MemoryFormat::ChannelsLast);
  WeightGradient out{
      .weight = at::empty({g.size(1), x.size(1) / shape.groups, kernel_h, kernel_w}, nhwc),
      .bias = at::empty({g.size(1)}, g.options())};
  if (x.scalar_type() == at::kFloat) {
    Product<Float32>(x, g, kernel_h, kernel_w, shape, out).run();
  } else {
    NF_CHECK(x.scalar_type() == at::kBFloat16, "float32 or bfloat16");
    Product<Bfloat16>(x, g, kernel_h, kernel_w, shape, out).run();
  }
  return out;
}

}  // namespace nf::model

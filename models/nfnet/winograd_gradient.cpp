// The gradients of the weight and bias; see winograd.h. A unit is some groups, or some of a group's
// outputs, over a part of the tiles. It transforms as many tiles at a time as its cache holds, and
// multiplies them plane by plane.
#include <ATen/Parallel.h>

#include <algorithm>

#include "core/check.h"
#include "models/nfnet/shared_for.h"
#include "models/nfnet/weight_tile.h"
#include "models/nfnet/winograd.h"
#include "models/nfnet/winograd_maps.h"
#include "models/nfnet/winograd_tiles.h"

namespace nf::model {
namespace {

constexpr int64_t kPackedBytes = 1 << 19;  // of transformed tiles at a time
constexpr int64_t kMostSets = 32;          // of tiles; narrow groups stay in the first cache then
constexpr int64_t kPartBytes = 1 << 20;    // of the sums of all parts, but of two at least
constexpr int64_t kMostParts = 8;
constexpr int64_t kChannels = 128;      // of a unit, where groups are narrower
constexpr int64_t kUnitsPerThread = 4;  // or any multiple of the threads
constexpr int64_t kPad = 16;            // planes begin in different sets of a cache

template <class Form, class Type>
class Gradient {
 public:
  using Source = typename Type::Source;
  using Element = typename Type::Element;
  static constexpr int64_t kTogether = Type::kImages;  // tiles of an element
  static constexpr int64_t kInputs = Type::kInputs, kTile = kTileOutputs * kInputs;

  Gradient(const at::Tensor& x, const at::Tensor& g, int64_t groups, const WeightGradient& out)
      : inputs_(x, Form::kOutputs),
        outputs_(g, Form::kOutputs),
        groups_(groups),
        in_(x.size(1) / groups),
        out_(g.size(1) / groups),
        x_(static_cast<const Source*>(x.const_data_ptr())),
        g_(static_cast<const Source*>(g.const_data_ptr())),
        weight_(static_cast<Source*>(out.weight.mutable_data_ptr())),
        bias_(static_cast<Source*>(out.bias.mutable_data_ptr())),
        groups_at_once_(std::clamp<int64_t>(kChannels / std::max(in_, out_), 1, groups)) {
    // As many tiles and parts for any number of threads: it is the order of the sums.
    const int64_t set_bytes = kAll * (in_ + out_) * 4;
    if (chunks() == 1) parts_ = std::clamp<int64_t>(kPartBytes / (4 * unit_sums()), 2, kMostParts);
    parts_ = blocks_of(sets(), blocks_of(sets(), parts_));  // none of them empty
    sets_at_once_ =
        std::min(std::clamp<int64_t>(kPackedBytes / set_bytes, 1, kMostSets), part_sets());
    const int64_t threads = at::get_num_threads();
    const auto uneven = [&] {
      return units() % threads != 0 && units() < kUnitsPerThread * threads;
    };
    while (uneven() && groups_at_once_ > 1) --groups_at_once_;
    while (uneven() && slices_ < out_blocks()) ++slices_;
  }

  void run() {
    const int64_t of_x = kAll * input_plane(), of_g = kAll * output_plane();
    const int64_t threads = at::get_num_threads();
    const int64_t buffers = parts_ > 1 ? units() : threads;
    const at::Tensor memory =
        at::empty({threads * (of_x + of_g) + buffers * unit_sums()}, at::kFloat);
    auto* const scratch = memory.mutable_data_ptr<float>();
    float* const sums = scratch + threads * (of_x + of_g);
    const int64_t channels = std::max(inputs_.channels, outputs_.channels);
    const TableMemory<Source> zeros(channels);
    std::fill_n(zeros.data(), channels, Source{});
    const TableMemory<Pixels> pixels(threads * sets_at_once_);
    shared_for(units(), 1, [&](int64_t begin, int64_t end) {
      const int64_t thread = at::get_thread_num();
      auto* const of_thread = reinterpret_cast<Element*>(scratch + thread * (of_x + of_g));
      const Scratch own{.x = of_thread,
                        .g = of_thread + of_x,
                        .pixels = pixels.data() + thread * sets_at_once_,
                        .beside = zeros.data()};
      for (int64_t i = begin; i < end; ++i) {
        float* const to = sums + (parts_ > 1 ? i : thread) * unit_sums();
        sum(unit(i), own, to);
        if (parts_ == 1) write(unit(i), to);
      }
    });
    if (parts_ == 1) return;
    add_parts(sums, part_units() * unit_sums(), parts_);
    shared_for(part_units(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) write(unit(i), sums + i * unit_sums());
    });
  }

 private:
  static constexpr int64_t kAll = kPlanes<Form>;
  static constexpr int64_t kSide = Form::kInputs;  // a plane is that of a row and column

  struct Unit {
    int64_t group, groups, output, outputs, first_set, sets;  // outputs in blocks
  };
  struct Pixels {  // of kTogether tiles
    TileInputs<Form, Source> x[kTogether];
    TileOutputs<Form, Source> g[kTogether];
  };
  struct Scratch {
    Element *x, *g;
    Pixels* pixels;        // of each set
    const Source* beside;  // zeros
  };

  int64_t sets() const { return blocks_of(inputs_.tiles(), kTogether); }
  int64_t part_sets() const { return blocks_of(sets(), parts_); }
  int64_t chunks() const { return blocks_of(groups_, groups_at_once_); }
  int64_t in_blocks() const { return in_ / kInputs; }
  int64_t out_blocks() const { return out_ / kTileOutputs; }
  int64_t slice() const { return blocks_of(out_blocks(), slices_); }
  int64_t part_units() const { return chunks() * blocks_of(out_blocks(), slice()); }
  int64_t units() const { return parts_ * part_units(); }
  int64_t input_plane() const { return sets_at_once_ * in_ + kPad; }
  int64_t output_plane() const { return sets_at_once_ * slice() * kTileOutputs + kPad; }
  // [plane][block of inputs][block of outputs][tile], then [output] for the bias.
  int64_t group_sums() const { return slice() * (kAll * in_blocks() * kTile + kTileOutputs); }
  int64_t unit_sums() const { return groups_at_once_ * group_sums(); }
  static int64_t tile_at(const Unit& u, int64_t plane, int64_t input, int64_t output,
                         int64_t in_blocks) {
    return ((plane * in_blocks + input) * u.outputs + output) * kTile;
  }

  Unit unit(int64_t index) const {
    const int64_t slices = blocks_of(out_blocks(), slice());
    Unit u{};
    u.output = index % slices * slice();
    u.outputs = std::min(slice(), out_blocks() - u.output);
    u.group = index / slices % chunks() * groups_at_once_;
    u.groups = std::min(groups_at_once_, groups_ - u.group);
    u.first_set = index / slices / chunks() * part_sets();
    u.sets = std::min(part_sets(), sets() - u.first_set);
    return u;
  }

  void sum(const Unit& u, const Scratch& scratch, float* sums) const {
    for (int64_t done = 0; done < u.sets; done += sets_at_once_) {
      const int64_t sets = std::min(sets_at_once_, u.sets - done);
      find_pixels(u.first_set + done, sets, scratch);
      for (int64_t group = 0; group < u.groups; ++group) {
        float* const of_group = sums + group * group_sums();
        float* const bias = of_group + tile_at(u, kAll, 0, 0, in_blocks());
        if (done == 0) std::fill_n(bias, u.outputs * kTileOutputs, 0.0F);
        transform_inputs(u.group + group, sets, scratch);
        transform_outputs(u, u.group + group, sets, scratch, bias);
        multiply(u, sets, done > 0, scratch, of_group);
      }
    }
  }

  void find_pixels(int64_t first_set, int64_t sets, const Scratch& scratch) const {
    TileAt tile(inputs_, first_set * kTogether);
    int64_t left = inputs_.tiles() - first_set * kTogether;
    for (int64_t set = 0; set < sets; ++set)
      for (int64_t t = 0; t < kTogether; ++t, --left, tile.next(inputs_)) {
        scratch.pixels[set].x[t].find(inputs_, tile, left > 0, x_, scratch.beside);
        scratch.pixels[set].g[t].find(outputs_, tile, left > 0, g_, scratch.beside);
      }
  }

  void multiply(const Unit& u, int64_t sets, bool add, const Scratch& scratch, float* sums) const {
    const Run run = {.g = 0, .x = 0, .count = sets};
    for (int64_t plane = 0; plane < kAll; ++plane)
      for (int64_t i = 0; i < in_blocks(); ++i)
        for (int64_t o = 0; o < u.outputs; ++o)
          Type::multiply(scratch.g + plane * output_plane() + o * sets * kTileOutputs,
                         scratch.x + plane * input_plane() + i * sets * kInputs, Runs(&run, 1), 1,
                         add, sums + tile_at(u, plane, i, o, in_blocks()));
  }

  // B^T d B -> [plane][block of inputs][set][input]
  void transform_inputs(int64_t group, int64_t sets, const Scratch& scratch) const {
    lanes_loop([=, this, &scratch](auto rounding) NF_INLINE {
      for (int64_t set = 0; set < sets; ++set)
        for (int64_t c = 0; c < in_; c += kTileLanes) {
          Element* const to = scratch.x + (c / kInputs * sets + set) * kInputs + c % kInputs;
          transform_set<typename Form::OfInput>(rounding, scratch.pixels[set].x, group * in_ + c,
                                                to, input_plane());
        }
    });
  }

  // A dY A^T -> [plane][block of outputs][set][output]; adds dY to the bias' sums.
  void transform_outputs(const Unit& u, int64_t group, int64_t sets, const Scratch& scratch,
                         float* bias) const {
    const int64_t channel = group * out_ + u.output * kTileOutputs;
    lanes_loop([=, this, &u, &scratch](auto rounding) NF_INLINE {
      for (int64_t set = 0; set < sets; ++set)
        for (int64_t o = 0; o < u.outputs; ++o) {
          const auto& pixels = scratch.pixels[set].g;
          const int64_t at = channel + o * kTileOutputs;
          transform_set<typename Form::OfOutputGradient>(
              rounding, pixels, at, scratch.g + (o * sets + set) * kTileOutputs, output_plane());
          float* const sum = bias + o * kTileOutputs;
          Lanes total;
          load_lanes(sum, total);
          for (const auto& tile : pixels)
#pragma GCC unroll 4
            for (int i = 0; i < Form::kOutputs; ++i)
#pragma GCC unroll 4
              for (int j = 0; j < Form::kOutputs; ++j) {
                Lanes value;
                tile.load(at, i, j, value);
                total += value;
              }
          store_lanes(rounding, sum, total);
        }
    });
  }

  // 16 channels of a set of tiles, to planes that lie `plane` apart.
  template <class Map, class Round, class Pixels>
  NF_INLINE static void transform_set(Round rounding, const Pixels& pixels, int64_t channel,
                                      Element* to, int64_t plane) {
    const auto load = [&](int64_t tile) NF_INLINE {
      return [&pixels, channel, tile](int i, int j, Lanes& value)
                 NF_INLINE { pixels[tile].load(channel, i, j, value); };
    };
    if constexpr (kTogether == 1) {
      transform<Map>(load(0), [&](int i, int j, const Lanes& value) NF_INLINE {
        store_lanes(rounding, to + (i * kSide + j) * plane, value);
      });
    } else {
      Lanes mapped[kTogether][kAll];
#pragma GCC unroll 2
      for (int64_t t = 0; t < kTogether; ++t)
        transform<Map>(load(t), [&](int i, int j, const Lanes& value)
                                    NF_INLINE { mapped[t][i * kSide + j] = value; });
#pragma GCC unroll 16
      for (int64_t p = 0; p < kAll; ++p)
        store_pairs(rounding, to + p * plane, mapped[0][p], mapped[1][p]);
    }
  }

  // G^T sums G, rounded.
  void write(const Unit& u, const float* sums) const {
    lanes_loop([=, this, &u](auto rounding) NF_INLINE {
      const float* from = sums;
      for (int64_t group = 0; group < u.groups; ++group) {
        const int64_t channel = (u.group + group) * out_ + u.output * kTileOutputs;
        for (int64_t o = 0; o < u.outputs * kTileOutputs; ++o) {
          Source* const row = weight_ + (channel + o) * kKernel * in_;
          for (int64_t c = 0; c < in_; c += kTileLanes)
            transform<typename Form::ToKernelGradient>(
                [&](int i, int j, Lanes& value) NF_INLINE {
                  const int64_t at =
                      tile_at(u, i * kSide + j, c / kInputs, o / kTileOutputs, in_blocks());
                  load_lanes(from + at + o % kTileOutputs * kInputs + c % kInputs, value);
                },
                [&](int i, int j, const Lanes& value)
                    NF_INLINE { store_lanes(rounding, row + (i * 3 + j) * in_ + c, value); });
        }
        const int64_t of_bias = tile_at(u, kAll, 0, 0, in_blocks());
        for (int64_t o = 0; o < u.outputs * kTileOutputs; o += kTileLanes) {
          Lanes bias;
          load_lanes(from + of_bias + o, bias);
          store_lanes(rounding, bias_ + channel + o, bias);
        }
        from += group_sums();
      }
    });
  }

  TiledImages inputs_, outputs_;
  int64_t groups_, in_, out_;  // channels of a group
  const Source *x_, *g_;
  Source *weight_, *bias_;
  int64_t groups_at_once_, parts_ = 1, slices_ = 1, sets_at_once_ = 1;
};

}  // namespace

WeightGradient winograd_of_weight(const at::Tensor& x, const at::Tensor& g, int64_t groups) {
  for (const at::Tensor& t : {x, g})
    NF_CHECK(t.is_cpu() && t.is_contiguous(at::MemoryFormat::ChannelsLast) &&
             t.size(1) % groups == 0);
  NF_CHECK(x.scalar_type() == g.scalar_type() && x.size(0) == g.size(0) && x.size(2) == g.size(2) &&
           x.size(3) == g.size(3));
  const at::TensorOptions nhwc = g.options().memory_format(at::MemoryFormat::ChannelsLast);
  WeightGradient out{.weight = at::empty({g.size(1), x.size(1) / groups, 3, 3}, nhwc),
                     .bias = at::empty({g.size(1)}, g.options())};
  const auto compute = [&]<class Form, class Type>(Form, Type) {
    NF_CHECK(x.size(1) % (groups * Type::kInputs) == 0 && g.size(1) % (groups * kTileOutputs) == 0);
    Gradient<Form, Type>(x, g, groups, out).run();
  };
  if (x.scalar_type() == at::kBFloat16) {
    compute(TwoByTwo{}, Bfloat16{});
  } else {
    NF_CHECK(x.scalar_type() == at::kFloat, "float32 or bfloat16");
    if (four_by_four_is_faster(x))
      compute(FourByFour{}, Float32{});
    else
      compute(TwoByTwo{}, Float32{});
  }
  return out;
}

}  // namespace nf::model

// See winograd.h. A unit is some tiles of some groups. Its transformed inputs stay in the second
// cache; each of their planes is multiplied by that of the kernel, one panel of a group's
// outputs at a time.
#include "models/nfnet/winograd.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "core/check.h"
#include "models/nfnet/processor.h"
#include "models/nfnet/rows_tile.h"
#include "models/nfnet/shared_for.h"
#include "models/nfnet/winograd_maps.h"
#include "models/nfnet/winograd_tiles.h"

namespace nf::model {
namespace {

constexpr int64_t kRows = 32;        // tiles of a unit
constexpr int64_t kNarrowRows = 16;  // of narrow groups, which stay in the first cache then
constexpr int64_t kChannels = 128;   // of a unit, where groups are narrower
constexpr int64_t kPad = 16;         // floats: planes begin in different sets of a cache

// Products of float32, or of pairs of bfloat16 that lie side by side.
template <class Source>
struct Products {
  using Element = float;
  static constexpr int64_t kTogether = 1;
};
template <>
struct Products<uint16_t> {
  using Element = uint32_t;
  static constexpr int64_t kTogether = 2;
};

template <class Form, class Source>
class Convolution {
 public:
  using Element = typename Products<Source>::Element;
  static constexpr int64_t kTogether = Products<Source>::kTogether;

  // Of x with the kernel, or of a gradient with the kernel turned around.
  Convolution(const at::Tensor& x, const at::Tensor& weight, int64_t groups, bool turned)
      : image_(x, Form::kOutputs),
        groups_(groups),
        in_(x.size(1) / groups),
        out_((turned ? weight.size(1) * groups : weight.size(0)) / groups),
        turned_(turned),
        x_(static_cast<const Source*>(x.const_data_ptr())),
        weight_(static_cast<const Source*>(weight.const_data_ptr())),
        depth_(in_ / kTogether),
        groups_at_once_(std::clamp<int64_t>(kChannels / in_, 1, groups)) {
    const int64_t most = depth_ <= kRowLanes ? kNarrowRows : kRows;
    const int64_t blocks = blocks_of(image_.tiles(), most);
    rows_ = blocks_of(blocks_of(image_.tiles(), blocks), kTileRows) * kTileRows;
  }

  void run(const float* bias, Source* to) {
    const int64_t threads = at::get_num_threads();
    const int64_t of_thread = kAll * (input_plane() + sum_plane());
    const int64_t of_kernel = groups_ * out_ * depth_ * kAll;
    const at::Tensor memory = at::empty({of_kernel + threads * of_thread}, at::kFloat);
    auto* const kernel = static_cast<Element*>(memory.mutable_data_ptr());
    float* const scratch = memory.mutable_data_ptr<float>() + of_kernel;
    const int64_t panels = blocks_of(out_, kPanelColumns);
    shared_for(groups_ * panels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        transform_kernel(i / panels, i % panels * kPanelColumns, kernel);
    });
    const TableMemory<Source> zeros(image_.channels);
    std::fill_n(zeros.data(), image_.channels, Source{});
    const TableMemory<Pixels> pixels(threads * rows_);
    const int64_t blocks = blocks_of(image_.tiles(), rows_);
    shared_for(chunks() * blocks, 1, [&](int64_t begin, int64_t end) {
      const int64_t thread = at::get_thread_num();
      auto* const inputs = reinterpret_cast<Element*>(scratch + thread * of_thread);
      float* const sums = reinterpret_cast<float*>(inputs + kAll * input_plane());
      Pixels* const own = pixels.data() + thread * rows_;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t tile = i % blocks * rows_, first = i / blocks * groups_at_once_;
        const int64_t last = std::min(groups_, first + groups_at_once_);
        find_pixels(tile, zeros.data(), own);
        for (int64_t group = first; group < last; ++group) {
          transform_inputs(group, own, reinterpret_cast<Source*>(inputs));
          for (int64_t column = 0; column < out_; column += kPanelColumns) {
            multiply(inputs, kernel + panel_at(group, column), columns(column), sums);
            transform_sums(group, column, tile, sums, bias, to);
          }
        }
      }
    });
  }

 private:
  using Pixels = TileInputs<Form, Source>;
  static constexpr int64_t kAll = kPlanes<Form>;
  static constexpr int64_t kSide = Form::kInputs;  // a plane is that of a row and column

  int64_t chunks() const { return blocks_of(groups_, groups_at_once_); }
  int64_t input_plane() const { return rows_ * depth_ + kPad; }
  int64_t sum_plane() const { return rows_ * kPanelColumns + kPad; }
  int64_t columns(int64_t first) const { return std::min(kPanelColumns, out_ - first); }
  // Of a group and panel: [plane][depth][columns].
  int64_t panel_at(int64_t group, int64_t first) const {
    return (group * out_ + first) * kAll * depth_;
  }

  using Square = float[kKernel][kRowLanes][kRowLanes];  // [place][input][output]
  NF_INLINE static void read_square(const Source* from, int64_t channels, Square& to) {
    for (int64_t place = 0; place < kKernel; ++place) {
      Lanes rows[kRowLanes];
#pragma GCC unroll 16
      for (int64_t o = 0; o < kRowLanes; ++o)
        load_lanes(from + (o * kKernel + place) * channels, rows[o]);
      transpose(rows);
      __builtin_memcpy(to[place], rows, sizeof rows);
    }
  }

  // G g G^T of the panel from output `first` on -> its place in `kernel`.
  void transform_kernel(int64_t group, int64_t first, Element* kernel) const {
    Element* const panel = kernel + panel_at(group, first);
    const int64_t width = columns(first), plane = depth_ * width;
    // [o][3][3][c] of the weight; turned around, its outputs are inputs here.
    const int64_t channels = turned_ ? out_ : in_;
    const Source* const from = weight_ + group * in_ * out_ * kKernel;
    lanes_loop([=, this](auto rounding) NF_INLINE {
      for (int64_t block = 0; block < in_; block += kRowLanes)
        for (int64_t v = 0; v < width; v += kRowLanes) {
          Square square;
          if (!turned_)
            read_square(from + (first + v) * kKernel * channels + block, channels, square);
          for (int64_t i = 0; i < kRowLanes; i += kTogether) {
            Lanes mapped[kTogether][kAll];
            for (int64_t k = 0; k < kTogether; ++k) {
              const Source* const row = from + (block + i + k) * kKernel * channels + first + v;
              transform<typename Form::OfKernel>(
                  [&](int64_t a, int64_t b, Lanes& to) NF_INLINE {
                    const int64_t place = a * 3 + b;
                    if (turned_)
                      load_lanes(row + (kKernel - 1 - place) * channels, to);
                    else
                      load_lanes(square[place][i + k], to);
                  },
                  [&](int64_t a, int64_t b, const Lanes& value)
                      NF_INLINE { mapped[k][a * kSide + b] = value; });
            }
            Element* const to = panel + (block + i) / kTogether * width + v;
            for (int64_t p = 0; p < kAll; ++p) {
              if constexpr (kTogether == 1)
                store_lanes(rounding, to + p * plane, mapped[0][p]);
              else
                store_pairs(rounding, to + p * plane, mapped[0][p], mapped[1][p]);
            }
          }
        }
    });
  }

  void find_pixels(int64_t first, const Source* beside, Pixels* pixels) const {
    TileAt tile(image_, first);
    for (int64_t row = 0; row < rows_; ++row, tile.next(image_))
      pixels[row].find(image_, tile, first + row < image_.tiles(), x_, beside);
  }

  // -> [plane][tile][channel]
  void transform_inputs(int64_t group, const Pixels* pixels, Source* to) const {
    lanes_loop([=, this](auto rounding) NF_INLINE {
      const int64_t plane = input_plane() * kTogether;
      Source* at = to;
      for (int64_t row = 0; row < rows_; ++row)
        for (int64_t c = 0; c < in_; c += kRowLanes, at += kRowLanes)
          transform<typename Form::OfInput>(
              [&](int i, int j, Lanes& value)
                  NF_INLINE { pixels[row].load(group * in_ + c, i, j, value); },
              [&](int i, int j, const Lanes& value)
                  NF_INLINE { store_lanes(rounding, at + (i * kSide + j) * plane, value); });
    });
  }

  void multiply(const Element* inputs, const Element* panel, int64_t width, float* sums) const {
    const float zeros[kPanelColumns] = {};
    const RowsTile<Element> product = rows_tile<Element>(width);
    for (int64_t p = 0; p < kAll; ++p) {
      for (int64_t row = 0; row < rows_; row += kTileRows)
        product(inputs + row * depth_, depth_, panel, zeros, sums + row * width, width);
      inputs += input_plane();
      panel += depth_ * width;
      sums += sum_plane();
    }
  }

  // The panel from `column` on of a group.
  void transform_sums(int64_t group, int64_t column, int64_t first, const float* sums,
                      const float* bias, Source* to) const {
    TiledImages outputs = image_;
    outputs.channels = groups_ * out_;
    const int64_t channel = group * out_ + column;
    const int64_t width = columns(column), plane = sum_plane();
    const int64_t count = std::min(rows_, image_.tiles() - first);
    const TileAt first_tile(outputs, first);
    lanes_loop([=](auto rounding) NF_INLINE {
      TileAt tile = first_tile;
      for (int64_t row = 0; row < count; ++row, tile.next(outputs)) {
        const int64_t right = outputs.channels, below = outputs.width * right;
        const int64_t rows = outputs.height - tile.row, columns = outputs.width - tile.column;
        for (int64_t c = 0; c < width; c += kRowLanes) {
          Lanes added = {};
          if (bias != nullptr) load_lanes(bias + channel + c, added);
          const float* const from = sums + row * width + c;
          Source* const at = to + tile.first_element(outputs) + channel + c;
          transform<typename Form::ToOutput>(
              [&](int i, int j, Lanes& value)
                  NF_INLINE { load_lanes(from + (i * kSide + j) * plane, value); },
              [&](int i, int j, const Lanes& value) NF_INLINE {
                if (i < rows && j < columns)
                  store_lanes(rounding, at + i * below + j * right, value + added);
              });
        }
      }
    });
  }

  TiledImages image_;
  int64_t groups_, in_, out_;  // channels of a group
  bool turned_;
  const Source *x_, *weight_;
  int64_t depth_, groups_at_once_, rows_ = 0;  // elements of a row; groups and tiles of a unit
};

at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    int64_t groups, bool turned) {
  for (const at::Tensor& t : {x, weight})
    NF_CHECK(t.is_cpu() && t.is_contiguous(at::MemoryFormat::ChannelsLast));
  NF_CHECK(x.scalar_type() == weight.scalar_type() && weight.size(2) == 3 && weight.size(3) == 3);
  NF_CHECK(weight.size(0) % (groups * kRowLanes) == 0 && weight.size(1) % kRowLanes == 0);
  NF_CHECK(x.size(1) == (turned ? weight.size(0) : weight.size(1) * groups));
  const int64_t outputs = turned ? weight.size(1) * groups : weight.size(0);
  at::Tensor out = at::empty({x.size(0), outputs, x.size(2), x.size(3)},
                             x.options().memory_format(at::MemoryFormat::ChannelsLast));
  const at::Tensor added = bias.defined() ? bias.to(at::kFloat).contiguous() : bias;
  const float* const of_bias = bias.defined() ? added.const_data_ptr<float>() : nullptr;
  if (x.scalar_type() == at::kFloat) {
    float* const to = out.mutable_data_ptr<float>();
    if (four_by_four_is_faster(x))
      Convolution<FourByFour, float>(x, weight, groups, turned).run(of_bias, to);
    else
      Convolution<TwoByTwo, float>(x, weight, groups, turned).run(of_bias, to);
  } else {
    NF_CHECK(x.scalar_type() == at::kBFloat16, "float32 or bfloat16");
    Convolution<TwoByTwo, uint16_t>(x, weight, groups, turned)
        .run(of_bias, static_cast<uint16_t*>(out.mutable_data_ptr()));
  }
  return out;
}

}  // namespace

bool winograd_is_faster(const at::Tensor& x, const at::Tensor& weight, const ConvShape& s) {
  const bool fits = x.is_cpu() && weight.size(2) == 3 && weight.size(3) == 3 && s.stride == 1 &&
                    s.padding_h == 1 && s.padding_w == 1;
  const auto are_multiples = [&](int64_t of) {
    return weight.size(1) % of == 0 && weight.size(0) % (s.groups * of) == 0;
  };
  if (!fits) return false;
  if (x.scalar_type() == at::kFloat) return has_avx512() && !is_intel() && are_multiples(16);
  return x.scalar_type() == at::kBFloat16 && has_avx512_bf16() && !has_amx_bf16() &&
         are_multiples(32);
}

at::Tensor winograd_conv(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         int64_t groups) {
  return convolve(x, weight, bias, groups, /*turned=*/false);
}

at::Tensor winograd_of_images(const at::Tensor& g, const at::Tensor& weight, int64_t groups) {
  return convolve(g, weight, {}, groups, /*turned=*/true);
}

}  // namespace nf::model

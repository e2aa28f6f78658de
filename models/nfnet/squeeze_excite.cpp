// See squeeze_excite.h. With m = mean(o), h = relu(W1 m + b1), s = sigmoid(W2 h + b2) and f = scale
// gain keep s, the gradient g of the result gives
//   d shortcut = g,   df[b,c] = sum over H, W of g o,   do = g f + dm / (H W),
// and dm by the chain rule through the two small matrices.
#include "models/nfnet/squeeze_excite.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <type_traits>
#include <vector>

#include "core/vector_loop.h"
#include "models/nfnet/elements.h"
#include "models/nfnet/few_rows.h"
#include "models/nfnet/operators.h"
#include "models/nfnet/rows_product.h"
#include "models/nfnet/shared_for.h"
#include "models/nfnet/weight_gradient.h"

namespace nf::model {
namespace {

constexpr int64_t kBlockRows = 32;  // summed in the arithmetic type, blocks of them in double

// sums[c] = factor * sum over rows of term(row * columns + c), in one fixed order.
template <class A, class Term>
void sum_rows(int64_t rows, int64_t columns, double factor, A* out, const Term& term) {
  std::vector<A> part(static_cast<size_t>(columns));
  std::vector<double> total(static_cast<size_t>(columns));
  A* const partial = part.data();
  double* const sums = total.data();
  for (int64_t begin = 0; begin < rows; begin += kBlockRows) {
    const int64_t end = std::min(rows, begin + kBlockRows);
    vector_loop([=, &term]() NF_INLINE {
      for (int64_t c = 0; c < columns; ++c) partial[c] = term(begin * columns + c);
      for (int64_t r = begin + 1; r < end; ++r)
        for (int64_t c = 0; c < columns; ++c) partial[c] += term(r * columns + c);
      for (int64_t c = 0; c < columns; ++c) sums[c] += static_cast<double>(partial[c]);
    });
  }
  for (int64_t c = 0; c < columns; ++c) out[c] = static_cast<A>(factor * sums[c]);
}

// Shapes of a call: images, channels, pixels of an image.
struct Sizes {
  explicit Sizes(const at::Tensor& o) : b(o.size(0)), c(o.size(1)), p(o.size(2) * o.size(3)) {}
  int64_t b, c, p;
};

// The CPU's kernels know NHWC alone; on a GPU the convolutions' layout stays.
at::MemoryFormat layout_of(const at::Tensor& x) {
  return x.is_cpu() || x.is_contiguous(at::MemoryFormat::ChannelsLast)
             ? at::MemoryFormat::ChannelsLast
             : at::MemoryFormat::Contiguous;
}

template <class T>
T* data_of(const at::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

at::Tensor pixel_sums_cpu(const at::Tensor& o, const std::optional<at::Tensor>& g, double factor) {
  const Sizes n(o);
  at::Tensor out = at::empty({n.b, n.c}, o.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  with_element_type(o, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using A = typename Arithmetic<T>::Type;
    shared_for(n.b, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const T* const x = data_of<T>(o) + b * n.p * n.c;
        A* const to = data_of<A>(out) + b * n.c;
        if (g) {
          const T* const y = data_of<T>(*g) + b * n.p * n.c;
          sum_rows(n.p, n.c, factor, to,
                   [=](int64_t i) NF_INLINE { return load(x[i]) * load(y[i]); });
        } else {
          sum_rows(n.p, n.c, factor, to, [=](int64_t i) NF_INLINE { return load(x[i]); });
        }
      }
    });
  });
  return out;
}

at::Tensor scaled_sum_cpu(const at::Tensor& x, const at::Tensor& factor, const at::Tensor& added) {
  const Sizes n(x);
  const bool per_pixel = added.dim() == 4;
  at::Tensor out = at::empty_like(x);
  with_element_type(x, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using A = typename Arithmetic<T>::Type;
    shared_for(n.b, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const int64_t rows = n.p, columns = n.c, first = b * rows * columns;
        const T* const in = data_of<T>(x) + first;
        const A* const f = data_of<A>(factor) + b * columns;
        T* const to = data_of<T>(out) + first;
        if (per_pixel) {
          const T* const more = data_of<T>(added) + first;
          vector_loop([=]() NF_INLINE {
            for (int64_t r = 0; r < rows; ++r)
              for (int64_t c = 0, i = r * columns; c < columns; ++c, ++i)
                store(to[i], load(more[i]) + load(in[i]) * f[c]);
          });
        } else {
          const A* const more = data_of<A>(added) + b * columns;
          vector_loop([=]() NF_INLINE {
            for (int64_t r = 0; r < rows; ++r)
              for (int64_t c = 0, i = r * columns; c < columns; ++c, ++i)
                store(to[i], load(in[i]) * f[c] + more[c]);
          });
        }
      }
    });
  });
  return out;
}

using PixelSums = at::Tensor(const at::Tensor&, const std::optional<at::Tensor>&, double);
const auto& pixel_sums_operator() {
  static const auto op = find_operator<PixelSums>("nfscale::pixel_sums");
  return op;
}
// factor * sum over H, W of o, or of o g: [B, C] in the arithmetic type.
at::Tensor pixel_sums(const at::Tensor& o, const std::optional<at::Tensor>& g, double factor) {
  return pixel_sums_operator().call(o, g, factor);
}

// x * factor[b,c] + added, where added is a tensor like x or one value per image and channel.
at::Tensor scaled_sum(const at::Tensor& x, const at::Tensor& factor, const at::Tensor& added) {
  using ScaledSum = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&);
  static const auto op = find_operator<ScaledSum>("nfscale::scaled_sum");
  return op.call(x, factor, added);
}

// A fully connected layer, w [O, I, 1, 1], and its gradients for that of the result.
at::Tensor connected(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) {
  if (are_few_rows(x)) return few_rows_linear(x, w.flatten(1), b);
  if (rows_product_is_faster(x, w.size(0))) return rows_product(x, w.flatten(1).t(), b);
  return at::linear(x, w.flatten(1), b);
}
at::Tensor gradient_of_input(const at::Tensor& g, const at::Tensor& w) {
  if (are_few_rows(g)) return few_rows_of_input(g, w.flatten(1));
  return rows_product_is_faster(g, w.size(1)) ? rows_product(g, w.flatten(1), {})
                                              : g.mm(w.flatten(1));
}
at::Tensor gradient_of_weight(const at::Tensor& g, const at::Tensor& x, const at::Tensor& w) {
  if (are_few_rows(g)) return few_rows_of_weight(g, x).view_as(w);
  const at::Tensor image = x.view({x.size(0), x.size(1), 1, 1});
  if (weight_gradient_is_faster(image, w, 1))
    return weight_gradient(image, g.view({g.size(0), g.size(1), 1, 1}), 1, 1, {}).weight.view_as(w);
  return g.t().mm(x).view_as(w);
}

// For the gradient of factor = gate * branch with gate = sigmoid(z) and branch = scale gain keep,
// [1] or [B, 1]: those of z and of scale gain.
struct GateGradients {
  at::Tensor of_z;     // [B, C]
  at::Tensor of_gain;  // one value
};

GateGradients gate_gradients_cpu(const at::Tensor& d_factor, const at::Tensor& gate,
                                 const at::Tensor& branch, const at::Tensor& keep) {
  const int64_t images = gate.size(0), channels = gate.size(1);
  at::Tensor of_z = at::empty_like(gate);
  double of_gain = 0;
  with_element_type(gate, [&](auto* type) {
    using A = typename Arithmetic<std::remove_pointer_t<decltype(type)>>::Type;
    constexpr int64_t kLanes = 16;
    for (int64_t b = 0; b < images; ++b) {
      const A* const d = data_of<A>(d_factor) + b * channels;
      const A* const s = data_of<A>(gate) + b * channels;
      A* const to = data_of<A>(of_z) + b * channels;
      const A factor = data_of<A>(branch)[branch.numel() > 1 ? b : 0];
      A sums[kLanes] = {};
      vector_loop([=, &sums]() NF_INLINE {
        const int64_t whole = channels / kLanes * kLanes;
        for (int64_t first = 0; first < whole; first += kLanes)
          for (int64_t l = 0; l < kLanes; ++l) sums[l] += d[first + l] * s[first + l];
        for (int64_t c = whole; c < channels; ++c) sums[c - whole] += d[c] * s[c];
        for (int64_t c = 0; c < channels; ++c) to[c] = d[c] * factor * s[c] * (1 - s[c]);
      });
      double sum = 0;
      for (const A lane : sums) sum += static_cast<double>(lane);
      of_gain += keep.defined() ? sum * static_cast<double>(data_of<A>(keep)[b]) : sum;
    }
  });
  return {of_z, at::full({}, of_gain, gate.options())};
}

GateGradients gate_gradients(const at::Tensor& d_factor, const at::Tensor& gate,
                             const at::Tensor& branch, const at::Tensor& kept) {
  const at::Tensor keep = kept.defined() ? kept.flatten(1).to(gate) : kept;  // [B, 1]
  if (gate.is_cpu()) return gate_gradients_cpu(d_factor, gate, branch, keep);
  const at::Tensor of_gain = d_factor * gate;
  return {d_factor * branch * gate * (1 - gate), (keep.defined() ? of_gain * keep : of_gain).sum()};
}

class ExcitedSum : public torch::autograd::Function<ExcitedSum> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& shortcut,
                            const at::Tensor& in, const at::Tensor& w1, const at::Tensor& b1,
                            const at::Tensor& w2, const at::Tensor& b2, const at::Tensor& gain,
                            const std::optional<at::Tensor>& kept, double scale) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::MemoryFormat layout = layout_of(in);
    const at::Tensor o = in.contiguous(layout), keep = kept.value_or(at::Tensor());
    const at::Tensor mean = pixel_sums(o, std::nullopt, 1.0 / static_cast<double>(Sizes(o).p));
    const at::Tensor hidden = connected(mean, w1, b1).relu_();
    const at::Tensor gate = connected(hidden, w2, b2).sigmoid_();
    at::Tensor branch = (gain * scale).to(gate);  // [1], or [B, 1] with dropped branches
    if (keep.defined()) branch = branch * keep.flatten(1).to(gate);
    const at::Tensor factor = (gate * branch).contiguous();
    ctx->save_for_backward({o, w1, w2, gain, mean, hidden, gate, branch, factor, keep});
    ctx->saved_data["scale"] = scale;
    return scaled_sum(o, factor, shortcut.contiguous(layout));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const torch::autograd::variable_list saved = ctx->get_saved_variables();
    const at::Tensor &o = saved[0], &w1 = saved[1], &w2 = saved[2], &gain = saved[3],
                     &mean = saved[4], &hidden = saved[5], &gate = saved[6], &branch = saved[7],
                     &factor = saved[8], &keep = saved[9];
    const at::Tensor g = grads[0].contiguous(layout_of(o));
    const at::Tensor d_factor = pixel_sums(o, g, 1.0);
    const GateGradients d = gate_gradients(d_factor, gate, branch, keep);
    const at::Tensor& d_gate = d.of_z;
    const at::Tensor d_gain =
        (d.of_gain * ctx->saved_data["scale"].toDouble()).reshape_as(gain).to(gain);
    const at::Tensor d_hidden = at::threshold_backward(gradient_of_input(d_gate, w2), hidden, 0);
    const at::Tensor d_mean =
        gradient_of_input(d_hidden, w1).div_(static_cast<double>(Sizes(o).p)).contiguous();
    return {g,
            scaled_sum(g, factor, d_mean),
            gradient_of_weight(d_hidden, mean, w1),
            d_hidden.sum(0),
            gradient_of_weight(d_gate, hidden, w2),
            d_gate.sum(0),
            d_gain,
            at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

// Of tensors of one type and layout, NHWC or (not on the CPU) NCHW; factors and sums are [B, C] in
// the arithmetic type.
TORCH_LIBRARY_FRAGMENT(nfscale, library) {
  library.def("pixel_sums(Tensor o, Tensor? other, float factor) -> Tensor");
  library.def("scaled_sum(Tensor x, Tensor factor, Tensor added) -> Tensor");
}
TORCH_LIBRARY_IMPL(nfscale, CPU, library) {
  library.impl("pixel_sums", pixel_sums_cpu);
  library.impl("scaled_sum", scaled_sum_cpu);
}

at::Tensor excited_sum_composed(const at::Tensor& shortcut, const at::Tensor& o,
                                const SqueezeExcite& p, const at::Tensor& keep) {
  const auto type = o.scalar_type();
  const auto fc = [type](const at::Tensor& in, const at::Tensor& weight, const at::Tensor& bias) {
    return at::linear(in, weight.to(type).flatten(1), bias.to(type));
  };
  const at::Tensor hidden = fc(o.mean({2, 3}), p.fc1_weight, p.fc1_bias).relu_();
  const at::Tensor gate = fc(hidden, p.fc2_weight, p.fc2_bias).sigmoid_();
  at::Tensor factor = gate.unsqueeze(-1).unsqueeze(-1) * (p.skip_gain * p.scale).to(type);
  if (keep.defined()) factor = factor * keep;
  return at::addcmul(shortcut, o, factor);
}

at::Tensor excited_sum(const at::Tensor& shortcut, const at::Tensor& o, const SqueezeExcite& p,
                       const at::Tensor& keep) {
  NF_CHECK(shortcut.sizes() == o.sizes() && shortcut.scalar_type() == o.scalar_type());
  if (!has_kernel(pixel_sums_operator(), o)) return excited_sum_composed(shortcut, o, p, keep);
  return ExcitedSum::apply(shortcut, o, p.fc1_weight, p.fc1_bias, p.fc2_weight, p.fc2_bias,
                           p.skip_gain, keep.defined() ? std::optional(keep) : std::nullopt,
                           p.scale);
}

}  // namespace nf::model

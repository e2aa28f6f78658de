// See gelu.h. With s = 1 / (1 + e), e = exp(-z): 1 + tanh(z / 2) = 2 s, so gelu(x) = x s and
//   d gelu / dx = s + x z' e s^2,   z' = 2 sqrt(2/pi) (1 + 3 * 0.044715 x^2).
#include "models/nfnet/gelu.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "core/check.h"
#include "core/vector_loop.h"
#include "models/nfnet/elements.h"
#include "models/nfnet/operators.h"
#include "models/nfnet/shared_for.h"

namespace nf::model {
namespace {

constexpr double kSlope = 1.5957691216057308;  // 2 sqrt(2/pi)
constexpr double kCubic = 0.044715;
constexpr int64_t kGrain = 1 << 15;

// One rounding, where the processor has the instruction and where not: equal bits everywhere.
[[gnu::always_inline]] inline float multiply_add(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
inline double multiply_add(double a, double b, double c) { return a * b + c; }

// exp, of x beyond +-87 as at +-87; relative error below 8e-8. x = n ln 2 + r, |r| <= ln(2) / 2;
// the polynomial of degree 6 in r that begins with 1 + r and has the smallest relative error
// (3e-9); 2^n added to the exponent. Clamped and scaled by integers, which take fewer instructions.
[[gnu::always_inline]] inline float fast_exp(float x) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding n leaves n in the lowest bits
  constexpr float kLn2High = 0.693359375F, kLn2Low = -2.12194440e-4F;
  const auto bits = std::bit_cast<int32_t>(x);
  const int32_t size = std::min(bits & INT32_MAX, std::bit_cast<int32_t>(87.0F));
  x = std::bit_cast<float>((bits & INT32_MIN) | size);
  const float shifted = multiply_add(x, 1.44269504F, kRound), n = shifted - kRound;
  const float r = multiply_add(n, -kLn2Low, multiply_add(n, -kLn2High, x));
  float p = 1.381454002e-3F;
  p = multiply_add(p, r, 8.368745113e-3F);
  p = multiply_add(p, r, 4.166839079e-2F);
  p = multiply_add(p, r, 1.666652040e-1F);
  p = multiply_add(p, r, 4.999999343e-1F);
  p = multiply_add(p, r, 1.0F);
  p = multiply_add(p, r, 1.0F);
  return std::bit_cast<float>(std::bit_cast<int32_t>(p) +
                              static_cast<int32_t>(std::bit_cast<uint32_t>(shifted) << 23));
}
inline double fast_exp(double x) { return std::exp(std::min(x, 700.0)); }

template <class T>
[[gnu::always_inline]] inline T exp_minus_z(T x) {
  constexpr T a = static_cast<T>(-kSlope), b = static_cast<T>(-kSlope * kCubic);
  return fast_exp(x * multiply_add(b, x * x, a));
}

template <class T>
[[gnu::always_inline]] inline T gelu_of(T x) {
  return x / (T{1} + exp_minus_z(x));
}

template <class T>
[[gnu::always_inline]] inline T slope_of(T x) {
  constexpr T a = static_cast<T>(kSlope), b = static_cast<T>(3 * kSlope * kCubic);
  const T e = exp_minus_z(x), s = T{1} / (T{1} + e);
  return multiply_add(x * multiply_add(b, x * x, a), (e * s) * s, s);
}

template <class T>
void forward_loop(const T* __restrict x, T* __restrict y, int64_t n) {
  vector_loop([=]() NF_INLINE {
    for (int64_t i = 0; i < n; ++i) store(y[i], gelu_of(load(x[i])));
  });
}

template <class T>
void backward_loop(const T* __restrict x, const T* __restrict g, T* __restrict dx, int64_t n) {
  vector_loop([=]() NF_INLINE {
    for (int64_t i = 0; i < n; ++i) store(dx[i], load(g[i]) * slope_of(load(x[i])));
  });
}

// dx = g gelu'(x) + added
template <class T>
void backward_add_loop(const T* __restrict x, const T* __restrict g, const T* __restrict added,
                       T* __restrict dx, int64_t n) {
  vector_loop([=]() NF_INLINE {
    for (int64_t i = 0; i < n; ++i)
      store(dx[i], load(g[i]) * slope_of(load(x[i])) + load(added[i]));
  });
}

// Of two rows of `width` pixels the means of 2 x 2.
template <class T>
void pool_loop(const T* __restrict y, T* __restrict to, int64_t width, int64_t channels) {
  using A = typename Arithmetic<T>::Type;
  const int64_t below = width * channels;
  vector_loop([=]() NF_INLINE {
    for (int64_t w = 0; w < width / 2; ++w)
      for (int64_t c = 0; c < channels; ++c) {
        const T* const at = y + 2 * w * channels + c;
        const A sum =
            load(at[0]) + load(at[channels]) + load(at[below]) + load(at[below + channels]);
        store(to[w * channels + c], sum * static_cast<A>(0.25));
      }
  });
}

// dx = (g + a quarter of the pooled pixel's gradient) gelu'(x), for two rows.
template <class T>
void backward_pool_loop(const T* __restrict x, const T* __restrict g, const T* __restrict pooled,
                        T* __restrict dx, int64_t width, int64_t channels) {
  using A = typename Arithmetic<T>::Type;
  vector_loop([=]() NF_INLINE {
    for (int64_t pixel = 0; pixel < 2 * width; ++pixel) {
      const int64_t first = pixel * channels, of_pooled = pixel % width / 2 * channels;
      for (int64_t c = 0; c < channels; ++c) {
        const A up = load(g[first + c]) + load(pooled[of_pooled + c]) * static_cast<A>(0.25);
        store(dx[first + c], up * slope_of(load(x[first + c])));
      }
    }
  });
}

// A tensor's elements as loops see them; the pointer names the type.
template <class T>
const T* read(const at::Tensor& x, T*) {
  return static_cast<const T*>(x.const_data_ptr());
}
template <class T>
T* write(const at::Tensor& x, T*) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// body(type, begin, end) for parts of x's elements, on all threads.
template <class Body>
void over_elements(const at::Tensor& x, const Body& body) {
  with_element_type(x, [&](auto* type) {
    shared_for(x.numel(), kGrain, [&](int64_t begin, int64_t end) { body(type, begin, end); });
  });
}

at::Tensor gelu_cpu(const at::Tensor& x) {
  at::Tensor y = at::empty_like(x);
  over_elements(x, [&](auto* type, int64_t begin, int64_t end) {
    forward_loop(read(x, type) + begin, write(y, type) + begin, end - begin);
  });
  return y;
}

at::Tensor gelu_backward_cpu(const at::Tensor& grad, const at::Tensor& x) {
  at::Tensor dx = at::empty_like(x);
  over_elements(x, [&](auto* type, int64_t begin, int64_t end) {
    backward_loop(read(x, type) + begin, read(grad, type) + begin, write(dx, type) + begin,
                  end - begin);
  });
  return dx;
}

at::Tensor gelu_backward_add_cpu(const at::Tensor& grad, const at::Tensor& x,
                                 const at::Tensor& added) {
  at::Tensor dx = at::empty_like(x);
  over_elements(x, [&](auto* type, int64_t begin, int64_t end) {
    backward_add_loop(read(x, type) + begin, read(grad, type) + begin, read(added, type) + begin,
                      write(dx, type) + begin, end - begin);
  });
  return dx;
}

// An NHWC tensor's rows of W C elements, and where they lie in the padded tensor.
struct PaddedRows {
  PaddedRows(const at::Tensor& x, int64_t bottom, int64_t right)
      : images(x.size(0)),
        height(x.size(2)),
        length(x.size(3) * x.size(1)),
        padded_height(height + bottom),
        padded_length((x.size(3) + right) * x.size(1)) {}

  // body(row's offset in x, row's offset in the padded tensor, zeros behind it there)
  template <class Body>
  void for_each(const Body& body) const {
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, length));
    shared_for(images * height, grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t image = row / height, at = row % height;
        const int64_t below = at + 1 == height ? padded_height - height : 0;
        body(row * length, (image * padded_height + at) * padded_length,
             padded_length - length + below * padded_length);
      }
    });
  }

  int64_t images, height, length;
  int64_t padded_height, padded_length;
};

class PaddedGelu : public torch::autograd::Function<PaddedGelu> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            int64_t bottom, int64_t right) {
    ctx->save_for_backward({x});
    ctx->saved_data["bottom"] = bottom;
    ctx->saved_data["right"] = right;
    at::Tensor y = at::empty({x.size(0), x.size(1), x.size(2) + bottom, x.size(3) + right},
                             x.options().memory_format(at::MemoryFormat::ChannelsLast));
    with_element_type(x, [&](auto* type) {
      const PaddedRows rows(x, bottom, right);
      rows.for_each([&, to = write(y, type)](int64_t in, int64_t out, int64_t zeros) {
        forward_loop(read(x, type) + in, to + out, rows.length);
        std::fill_n(to + out + rows.length, zeros, 0);
      });
    });
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor x = ctx->get_saved_variables()[0];
    const at::Tensor g = grads[0].contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor dx = at::empty_like(x);
    with_element_type(x, [&](auto* type) {
      const PaddedRows rows(x, ctx->saved_data["bottom"].toInt(), ctx->saved_data["right"].toInt());
      rows.for_each([&](int64_t at, int64_t padded, int64_t) {
        backward_loop(read(x, type) + at, read(g, type) + padded, write(dx, type) + at,
                      rows.length);
      });
    });
    return {dx, at::Tensor(), at::Tensor()};
  }
};

const auto& forward_operator() {
  static const auto op = find_operator<at::Tensor(const at::Tensor&)>("nfscale::gelu_tanh");
  return op;
}
const auto& backward_operator() {
  static const auto op = find_operator<at::Tensor(const at::Tensor&, const at::Tensor&)>(
      "nfscale::gelu_tanh_backward");
  return op;
}

at::Tensor laid_out_like(const at::Tensor& g, const at::Tensor& x) {
  return g.strides() == x.strides() ? g : at::empty_like(x).copy_(g);
}

class Gelu : public torch::autograd::Function<Gelu> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& in) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor x = in.is_non_overlapping_and_dense() ? in : in.contiguous();
    ctx->save_for_backward({x});
    return forward_operator().call(x);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor x = ctx->get_saved_variables()[0];
    return {backward_operator().call(laid_out_like(grads[0], x), x)};
  }
};

class Fork : public torch::autograd::Function<Fork> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx,
                                                const at::Tensor& x) {
    ctx->save_for_backward({x});
    return {x, gelu_cpu(x)};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor x = ctx->get_saved_variables()[0];
    return {gelu_backward_add_cpu(laid_out_like(grads[1], x), x, laid_out_like(grads[0], x))};
  }
};

// body(offset in x, offset in the pooled tensor) for every two rows of x.
template <class Body>
void over_row_pairs(const at::Tensor& x, const Body& body) {
  const int64_t row = x.size(3) * x.size(1);
  shared_for(x.size(0) * x.size(2) / 2, std::max<int64_t>(1, kGrain / (2 * row)),
             [&](int64_t begin, int64_t end) {
               for (int64_t i = begin; i < end; ++i) body(2 * i * row, i * (row / 2));
             });
}

class Pooled : public torch::autograd::Function<Pooled> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* ctx,
                                                const at::Tensor& x) {
    ctx->save_for_backward({x});
    const int64_t channels = x.size(1), width = x.size(3);
    const at::Tensor y = at::empty_like(x);
    const at::Tensor pooled = at::empty({x.size(0), channels, x.size(2) / 2, width / 2},
                                        x.options().memory_format(at::MemoryFormat::ChannelsLast));
    with_element_type(x, [&](auto* type) {
      over_row_pairs(x,
                     [&, to = write(y, type), means = write(pooled, type)](int64_t at, int64_t p) {
                       forward_loop(read(x, type) + at, to + at, 2 * width * channels);
                       pool_loop(to + at, means + p, width, channels);
                     });
    });
    return {y, pooled};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor x = ctx->get_saved_variables()[0], g = laid_out_like(grads[0], x);
    const at::Tensor of_pooled = grads[1].contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor dx = at::empty_like(x);
    with_element_type(x, [&](auto* type) {
      over_row_pairs(x, [&, to = write(dx, type)](int64_t at, int64_t p) {
        backward_pool_loop(read(x, type) + at, read(g, type) + at, read(of_pooled, type) + p,
                           to + at, x.size(3), x.size(1));
      });
    });
    return {dx};
  }
};

}  // namespace

// Both take tensors of one type whose elements lie in the same places without gaps.
TORCH_LIBRARY_FRAGMENT(nfscale, library) {
  library.def("gelu_tanh(Tensor x) -> Tensor");
  library.def("gelu_tanh_backward(Tensor grad, Tensor x) -> Tensor");
}
TORCH_LIBRARY_IMPL(nfscale, CPU, library) {
  library.impl("gelu_tanh", gelu_cpu);
  library.impl("gelu_tanh_backward", gelu_backward_cpu);
}

at::Tensor gelu_tanh(const at::Tensor& x) {
  return has_kernel(forward_operator(), x) ? Gelu::apply(x) : at::gelu(x, "tanh");
}

at::Tensor gelu_tanh_padded(const at::Tensor& x, int64_t bottom, int64_t right) {
  if (x.is_cpu() && x.is_contiguous(at::MemoryFormat::ChannelsLast))
    return PaddedGelu::apply(x, bottom, right);
  return at::constant_pad_nd(gelu_tanh(x), {0, right, 0, bottom}, 0);
}

GeluFork gelu_tanh_fork(const at::Tensor& x) {
  if (!x.is_cpu() || !x.is_non_overlapping_and_dense()) return {x, gelu_tanh(x)};
  const torch::autograd::variable_list both = Fork::apply(x);
  return {both[0], both[1]};
}

bool gelu_tanh_pools(const at::Tensor& x) {
  return x.is_cpu() && x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast) &&
         x.size(2) % 2 == 0 && x.size(3) % 2 == 0;
}

GeluPool gelu_tanh_pool(const at::Tensor& x) {
  NF_CHECK(gelu_tanh_pools(x), "an even NHWC tensor on the CPU");
  const torch::autograd::variable_list both = Pooled::apply(x);
  return {both[0], both[1]};
}

}  // namespace nf::model

// See conv.h.
#include "models/nfnet/conv.h"

#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "core/check.h"
#include "models/nfnet/processor.h"
#include "models/nfnet/rows_product.h"
#include "models/nfnet/weight_gradient.h"
#include "models/nfnet/winograd.h"

namespace nf::model {
namespace {

at::Tensor nhwc(const at::Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); }

// [B, C, H, W] in NHWC as its rows of channels, [B H W, C], and back.
at::Tensor rows_of(const at::Tensor& x) { return x.permute({0, 2, 3, 1}).reshape({-1, x.size(1)}); }
at::Tensor image_of(const at::Tensor& rows, const at::Tensor& like) {
  return rows.view({like.size(0), like.size(2), like.size(3), rows.size(1)}).permute({0, 3, 1, 2});
}

bool is_pointwise(const at::Tensor& weight, const ConvShape& s) {
  return weight.size(2) == 1 && weight.size(3) == 1 && s.stride == 1 && s.groups == 1 &&
         s.padding_h == 0 && s.padding_w == 0;
}

// Whether there are so many pixels beside weights that oneDNN's convolution, which reorders the
// weights, is faster than a product (measured).
bool many_pixels(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t pixels = x.size(0) * x.size(2) * x.size(3);
  const bool half = x.scalar_type() == at::kBFloat16;
  return half ? 2 * pixels >= weight.size(0) : pixels >= 2 * weight.size(0);
}

using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;  // of x, weight and bias

Gradients of_torch(const at::Tensor& g, const at::Tensor& x, const at::Tensor& weight,
                   const ConvShape& s, std::array<bool, 3> wanted) {
  const int64_t outputs = weight.size(0);
  return at::convolution_backward(g, x, weight, at::IntArrayRef(outputs), {s.stride, s.stride},
                                  {s.padding_h, s.padding_w}, {1, 1}, /*transposed=*/false, {0, 0},
                                  s.groups, wanted);
}

// dX = G W of a 1x1 kernel, unless oneDNN's convolution is the faster way.
at::Tensor product_with_weight(const at::Tensor& g, const at::Tensor& x, const at::Tensor& weight) {
  const at::Tensor rows = rows_of(g), matrix = weight.flatten(1);
  if (rows_product_is_faster(rows, x.size(1))) return image_of(rows_product(rows, matrix, {}), x);
  const bool convolves = x.scalar_type() == at::kBFloat16 || (has_avx512() && !is_intel());
  if (convolves && many_pixels(x, weight)) return {};
  return image_of(rows.mm(matrix), x);
}

class Conv : public torch::autograd::Function<Conv> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& in,
                            const at::Tensor& weight, const at::Tensor& bias, const ConvShape& s) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor x = nhwc(in);
    ctx->save_for_backward({x, weight});
    ctx->saved_data["shape"] = std::vector<int64_t>{s.stride, s.padding_h, s.padding_w, s.groups};
    if (is_pointwise(weight, s)) {
      const at::Tensor rows = rows_of(x);
      if (rows_product_is_faster(rows, weight.size(0)))
        return image_of(rows_product(rows, weight.flatten(1).t(), bias), x);
      if (!many_pixels(x, weight)) return image_of(at::addmm(bias, rows, weight.flatten(1).t()), x);
    }
    if (winograd_is_faster(x, weight, s)) return winograd_conv(x, nhwc(weight), bias, s.groups);
    return nhwc(at::convolution(x, weight, bias, {s.stride, s.stride}, {s.padding_h, s.padding_w},
                                {1, 1}, /*transposed=*/false, {0, 0}, s.groups));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const torch::autograd::variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const std::vector<int64_t> shape = ctx->saved_data["shape"].toIntVector();
    const ConvShape s{shape[0], shape[1], shape[2], shape[3]};
    const at::Tensor g = nhwc(grads[0]);
    const bool of_images = ctx->needs_input_grad(0), pointwise = is_pointwise(weight, s);
    const bool winograd = winograd_is_faster(x, weight, s);
    const bool own = winograd || weight_gradient_is_faster(x, weight, s.groups);
    at::Tensor dx, dw, db;
    if (of_images && pointwise) dx = product_with_weight(g, x, weight);
    if (of_images && winograd) dx = winograd_of_images(g, nhwc(weight), s.groups);
    const bool images_left = of_images && !dx.defined(), weights_left = !own && !pointwise;
    if (images_left || weights_left) {
      const Gradients found = of_torch(g, x, weight, s, {images_left, weights_left, weights_left});
      if (images_left) dx = std::get<0>(found);
      dw = std::get<1>(found);
      db = std::get<2>(found);
    }
    if (own) {
      WeightGradient of_weight = winograd
                                     ? winograd_of_weight(x, g, s.groups)
                                     : weight_gradient(x, g, weight.size(2), weight.size(3), s);
      dw = std::move(of_weight.weight);
      db = std::move(of_weight.bias);
    } else if (pointwise) {
      const at::Tensor rows = rows_of(g);
      dw = rows.t().mm(rows_of(x)).view_as(weight);
      db = rows.sum(0);
    }
    return {dx, dw, db, at::Tensor()};
  }
};

// Elsewhere than on the CPU, and in bfloat16 where the processor does not multiply it (oneDNN's
// products are slow where they are emulated), LibTorch's own gradients are taken.
bool has_own_backward(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() != at::kBFloat16 || has_avx512_bf16());
}

}  // namespace

at::Tensor conv(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                const ConvShape& s) {
  NF_CHECK(weight.size(1) * s.groups == x.size(1));
  if (has_own_backward(x)) return Conv::apply(x, weight, bias, s);
  return at::convolution(x, weight, bias, {s.stride, s.stride}, {s.padding_h, s.padding_w}, {1, 1},
                         /*transposed=*/false, {0, 0}, s.groups);
}

}  // namespace nf::model

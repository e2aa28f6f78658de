// See pointwise_conv.h.
#include "models/nfnet/pointwise_conv.h"

#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <tuple>

#include "core/check.h"

namespace nf::model {
namespace {

at::Tensor nhwc(const at::Tensor& x) { return x.contiguous(at::MemoryFormat::ChannelsLast); }

// [B, C, H, W] in NHWC as its rows of channels, [B H W, C], and back.
at::Tensor rows_of(const at::Tensor& x) { return x.permute({0, 2, 3, 1}).reshape({-1, x.size(1)}); }
at::Tensor image_of(const at::Tensor& rows, const at::Tensor& like) {
  return rows.view({like.size(0), like.size(2), like.size(3), rows.size(1)}).permute({0, 3, 1, 2});
}

// Whether there are so many pixels beside weights that oneDNN's convolution, which reorders the
// weights, is faster than a product (measured).
bool many_pixels(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t pixels = x.size(0) * x.size(2) * x.size(3);
  const bool half = x.scalar_type() == at::kBFloat16;
  return half ? 2 * pixels >= weight.size(0) : pixels >= 2 * weight.size(0);
}

at::Tensor gradient_of_images(const at::Tensor& g, const at::Tensor& x, const at::Tensor& weight) {
  if (x.scalar_type() != at::kBFloat16 || !many_pixels(x, weight))
    return image_of(rows_of(g).mm(weight.flatten(1)), x);
  return std::get<0>(at::convolution_backward(g, x, weight, std::nullopt, {1, 1}, {0, 0}, {1, 1},
                                              false, {0, 0}, 1, {true, false, false}));
}

bool multiplies_bfloat16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;  // not measured
#endif
}

class PointwiseConv : public torch::autograd::Function<PointwiseConv> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& in,
                            const at::Tensor& weight, const at::Tensor& bias) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor x = nhwc(in);
    ctx->save_for_backward({x, weight});
    if (many_pixels(x, weight))
      return nhwc(at::convolution(x, weight, bias, {1, 1}, {0, 0}, {1, 1}, /*transposed=*/false,
                                  {0, 0}, 1));
    return image_of(at::addmm(bias, rows_of(x), weight.flatten(1).t()), x);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const torch::autograd::variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const at::Tensor image = nhwc(grads[0]), g = rows_of(image);
    return {ctx->needs_input_grad(0) ? gradient_of_images(image, x, weight) : at::Tensor(),
            g.t().mm(rows_of(x)).view_as(weight), g.sum(0)};
  }
};

}  // namespace

bool pointwise_conv_is_faster(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() != at::kBFloat16 || multiplies_bfloat16());
}

at::Tensor pointwise_conv(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  NF_CHECK(x.is_cpu() && weight.size(2) == 1 && weight.size(3) == 1 && weight.size(1) == x.size(1));
  return PointwiseConv::apply(x, weight, bias);
}

}  // namespace nf::model

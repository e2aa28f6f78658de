// The fused operators on CUDA tensors: registers this library's kernels with PyTorch's dispatcher
// when the plug-in is loaded. Schemas: gelu.cpp, standardize.cpp, squeeze_excite.cpp. All work goes
// to LibTorch's current stream of the tensor's device.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <type_traits>

#include "core/check.h"
#include "core/error.h"
#include "models/nfnet/cuda/kernels.h"

namespace nf::model::cuda {
namespace {

// What a launch needs from its tensors: their device made current, and its stream.
class Place {
 public:
  explicit Place(const at::Tensor& x) : guard_(x.device()) {}
  cudaStream_t stream() const {
    return c10::cuda::getCurrentCUDAStream(guard_.current_device().index()).stream();
  }
  void check(cudaError_t error, const char* what) const {
    if (error == cudaSuccess) return;
    throw Error(ExitCode::kOther, "GPU " + std::to_string(guard_.current_device().index()),
                std::string("cannot run ") + what + ": " + cudaGetErrorString(error), "");
  }

 private:
  c10::DeviceGuard guard_;
};

// Calls body with a null pointer of float or uint16_t (bfloat16).
template <class Body>
void with_element(at::ScalarType type, const Body& body) {
  if (type == at::kFloat) return body(static_cast<float*>(nullptr));
  NF_CHECK(type == at::kBFloat16, "float32 or bfloat16");
  body(static_cast<uint16_t*>(nullptr));
}

template <class T>
T* data_of(const at::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

void check_like(const at::Tensor& a, const at::Tensor& b) {
  NF_CHECK(a.device() == b.device() && a.scalar_type() == b.scalar_type() &&
           a.numel() == b.numel() && a.strides() == b.strides());
}

at::Tensor gelu_tanh(const at::Tensor& x) {
  NF_CHECK(x.is_non_overlapping_and_dense());
  const Place place(x);
  at::Tensor y = at::empty_like(x);
  with_element(x.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    place.check(gelu<T>(data_of<T>(x), data_of<T>(y), x.numel(), place.stream()), "gelu_tanh");
  });
  return y;
}

at::Tensor gelu_tanh_backward(const at::Tensor& grad, const at::Tensor& x) {
  NF_CHECK(x.is_non_overlapping_and_dense());
  check_like(grad, x);
  const Place place(x);
  at::Tensor dx = at::empty_like(x);
  with_element(x.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    place.check(gelu_backward<T>(data_of<T>(grad), data_of<T>(x), data_of<T>(dx), x.numel(),
                                 place.stream()),
                "gelu_tanh_backward");
  });
  return dx;
}

StandardizeRule rule_of(const at::Tensor& w, const at::Tensor& gain, bool timm, double scale) {
  NF_CHECK(w.scalar_type() == at::kFloat && gain.scalar_type() == at::kFloat);
  NF_CHECK(w.is_contiguous() && gain.is_contiguous() && gain.numel() == w.size(0));
  return {w.numel() / w.size(0), timm, static_cast<float>(scale)};
}

at::Tensor standardize_weight(const at::Tensor& w, const at::Tensor& gain, bool timm, double scale,
                              at::ScalarType type) {
  const StandardizeRule rule = rule_of(w, gain, timm, scale);
  const Place place(w);
  at::Tensor out = at::empty_like(w, w.options().dtype(type));
  with_element(type, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    place.check(standardize<T>(data_of<float>(w), data_of<float>(gain), data_of<T>(out), w.size(0),
                               rule, place.stream()),
                "standardize");
  });
  return out;
}

void standardize_weight_backward(const at::Tensor& w, const at::Tensor& gain,
                                 const at::Tensor& grad, bool timm, double scale,
                                 const at::Tensor& grad_w, const at::Tensor& grad_gain) {
  const StandardizeRule rule = rule_of(w, gain, timm, scale);
  NF_CHECK(grad.is_contiguous() && grad.numel() == w.numel());
  NF_CHECK(grad_w.is_contiguous() && grad_w.numel() == w.numel() &&
           grad_gain.numel() == gain.numel());
  const Place place(w);
  with_element(grad.scalar_type(), [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    place.check(standardize_backward<T>(data_of<float>(w), data_of<float>(gain), data_of<T>(grad),
                                        data_of<float>(grad_w), data_of<float>(grad_gain),
                                        w.size(0), rule, place.stream()),
                "standardize_backward");
  });
}

// Whether it is NHWC; it must be that or NCHW.
bool is_nhwc(const at::Tensor& x) {
  NF_CHECK(x.dim() == 4);
  if (x.is_contiguous(at::MemoryFormat::ChannelsLast)) return true;
  NF_CHECK(x.is_contiguous());
  return false;
}

at::Tensor sums_over_pixels(const at::Tensor& o, const std::optional<at::Tensor>& other,
                            double factor) {
  const bool nhwc = is_nhwc(o);
  if (other) {
    NF_CHECK(other->sizes() == o.sizes() && other->scalar_type() == o.scalar_type() &&
             is_nhwc(*other) == nhwc);
  }
  const Place place(o);
  const int64_t images = o.size(0), channels = o.size(1), pixels = o.size(2) * o.size(3);
  const int64_t parts = nhwc ? pixel_parts(pixels) : 1;
  const auto floats = o.options().dtype(at::kFloat);
  at::Tensor out = at::empty({images, channels}, floats);
  const at::Tensor room = at::empty({parts > 1 ? images * parts * channels : 0}, floats);
  with_element(o.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const PixelSums<T> in = {data_of<T>(o), other ? data_of<T>(*other) : nullptr, pixels, channels};
    const auto f = static_cast<float>(factor);
    auto* const to = data_of<float>(out);
    place.check(nhwc ? pixel_sums<T>(in, images, f, data_of<float>(room), to, place.stream())
                     : pixel_sums_nchw<T>(in, images, f, to, place.stream()),
                "pixel_sums");
  });
  return out;
}

at::Tensor scaled_and_added(const at::Tensor& x, const at::Tensor& factor,
                            const at::Tensor& added) {
  const bool nhwc = is_nhwc(x);
  const bool per_pixel = added.dim() == 4;
  NF_CHECK(factor.is_contiguous() && factor.scalar_type() == at::kFloat &&
           factor.numel() == x.size(0) * x.size(1));
  if (per_pixel) {
    NF_CHECK(added.sizes() == x.sizes() && added.scalar_type() == x.scalar_type() &&
             is_nhwc(added) == nhwc);
  } else {
    NF_CHECK(added.is_contiguous() && added.scalar_type() == at::kFloat &&
             added.numel() == factor.numel());
  }
  const Place place(x);
  at::Tensor out = at::empty_like(x);
  with_element(x.scalar_type(), [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const ScaledSum<T> sum = {data_of<T>(x),
                              data_of<float>(factor),
                              per_pixel ? data_of<T>(added) : nullptr,
                              per_pixel ? nullptr : data_of<float>(added),
                              data_of<T>(out),
                              x.size(2) * x.size(3),
                              x.size(1)};
    place.check(nhwc ? scaled_sum<T>(sum, x.size(0), place.stream())
                     : scaled_sum_nchw<T>(sum, x.size(0), place.stream()),
                "scaled_sum");
  });
  return out;
}

TORCH_LIBRARY_IMPL(nfscale, CUDA, library) {
  library.impl("gelu_tanh", gelu_tanh);
  library.impl("gelu_tanh_backward", gelu_tanh_backward);
  library.impl("standardize", standardize_weight);
  library.impl("standardize_backward", standardize_weight_backward);
  library.impl("pixel_sums", sums_over_pixels);
  library.impl("scaled_sum", scaled_and_added);
}

}  // namespace
}  // namespace nf::model::cuda

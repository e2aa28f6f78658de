// The tiny network of the golden files, filled with their deterministic numbers, and tensors made
// of such numbers.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstring>
#include <string>
#include <vector>

#include "models/nfnet/nfnet.h"
#include "tests/support/golden_values.h"

namespace nf::test {

inline model::NfnetSpec tiny_spec(model::Flavour flavour = model::Flavour::kDm) {
  model::NfnetSpec spec;
  spec.name = "tiny";
  spec.depths = {1, 2, 2, 1};
  spec.widths = {32, 64, 96, 96};
  spec.stem_channels = {2, 4, 8, 16};
  spec.stem_strides = {2, 1, 1, 2};
  spec.stage_strides = {1, 2, 2, 2};
  spec.group_width = 8;
  spec.classes = 10;
  spec.flavour = flavour;
  return spec;
}

inline at::Tensor tensor_of(const std::vector<double>& values, const std::vector<int64_t>& shape,
                            at::ScalarType type) {
  at::Tensor t = at::empty(shape, at::kDouble);
  std::copy(values.begin(), values.end(), t.mutable_data_ptr<double>());
  return t.to(type);
}

// Golden values in every parameter; float32 is rounded once from double.
inline void fill_golden(model::Nfnet& net) {
  const at::NoGradGuard no_grad;
  for (const model::NamedParameter& p : net.parameters()) {
    const std::vector<int64_t> shape = p.tensor.sizes().vec();
    at::Tensor target = p.tensor;
    target.copy_(tensor_of(golden_parameter(p.name, shape), shape, at::kDouble));
  }
}

inline model::Nfnet golden_tiny(at::ScalarType type, model::Flavour flavour = model::Flavour::kDm) {
  model::Nfnet net(tiny_spec(flavour), type);
  fill_golden(net);
  return net;
}

inline at::Tensor golden_image_tensor(const std::vector<int64_t>& shape, at::ScalarType type) {
  return tensor_of(golden_images(shape.at(0), shape.at(2), shape.at(3)), shape, type);
}

// Row-major doubles of any tensor.
inline std::vector<double> doubles_of(const at::Tensor& t) {
  const at::Tensor d = t.detach().to(at::kDouble).contiguous();
  const double* p = d.const_data_ptr<double>();
  return {p, p + d.numel()};
}

// Mean softmax cross entropy with smoothing, in the logits' type.
inline at::Tensor golden_loss(const at::Tensor& logits, double smoothing) {
  const int64_t classes = logits.size(1);
  at::Tensor target = at::full_like(logits, smoothing / static_cast<double>(classes));
  const std::vector<int64_t> labels = golden_labels(logits.size(0), classes);
  for (size_t b = 0; b < labels.size(); ++b) {
    target[static_cast<int64_t>(b)][labels[b]] += 1.0 - smoothing;
  }
  return -(target * at::log_softmax(logits, 1)).sum(1).mean();
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         std::memcmp(a.contiguous().const_data_ptr(), b.contiguous().const_data_ptr(),
                     a.nbytes()) == 0;
}

}  // namespace nf::test

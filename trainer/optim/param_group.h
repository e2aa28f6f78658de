// What the optimizer works on: named parameters with their gradients and roles, and the flat layout
// that puts them all into one buffer. Views into flat arenas let the gradient sum, the checkpoint
// snapshot and (later) fused kernels treat all parameters as one array, while everything that goes
// by parameter still sees tensors.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/param_role.h"

namespace nf::train {

// One trainable tensor. value and grad are contiguous, of one shape, type (float32, or float64 in
// tests) and device; they may be views into flat arenas. A tensor is a handle: copies of a Param
// share their numbers.
struct Param {
  std::string name{};
  at::Tensor value{};
  at::Tensor grad{};  // undefined when frozen, or where gradients come as one flat buffer
  ParamRole role = ParamRole::kConvWeight;
  double lr_scale = 1.0;  // multiplies the learning rate of this parameter
  bool frozen = false;    // no gradient, no clipping, no update
};

// Where each tensor lies in one flat buffer. Every tensor starts at a multiple of 16 elements (64
// bytes of float32); the gaps are padding and stay zero. Independent of element type, device and
// world size.
class FlatLayout {
 public:
  static constexpr size_t kAlignment = 16;  // elements

  FlatLayout() = default;
  explicit FlatLayout(const std::vector<std::vector<int64_t>>& shapes);

  size_t size() const { return shapes_.size(); }  // number of tensors
  size_t elements() const { return elements_; }   // length of the buffer, padding included
  size_t offset(size_t i) const;                  // first element of tensor i
  const std::vector<int64_t>& shape(size_t i) const;
  size_t length(size_t i) const;  // elements of tensor i, without padding

  // A zero-filled buffer of elements() numbers, 64-byte aligned.
  at::Tensor make_arena(at::TensorOptions options = at::kFloat) const;
  // Tensor i as a contiguous view of the buffer (1-D, at least elements() long).
  at::Tensor view(const at::Tensor& arena, size_t i) const;
  std::vector<at::Tensor> views(const at::Tensor& arena) const;

 private:
  std::vector<std::vector<int64_t>> shapes_;
  std::vector<size_t> offsets_;
  size_t elements_ = 0;
};

// The layout of the parameters in their given order.
FlatLayout layout_of(const std::vector<Param>& params);

}  // namespace nf::train

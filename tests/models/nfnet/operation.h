// An operation with its gradients, for comparing two ways to compute it.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/support/tiny_net.h"

namespace nf::test {

inline at::Tensor numbers(const std::string& name, const std::vector<int64_t>& shape,
                          at::ScalarType type = at::kDouble, double magnitude = 1) {
  const uint64_t seed = fnv1a64(name);
  std::vector<double> values(static_cast<size_t>(element_count(shape)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = magnitude * v_seeded(seed, i);
  return tensor_of(values, shape, at::kDouble).to(type);
}

inline double worst(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

// The result and the gradients of all inputs, for a given gradient of the result.
using Operation = std::function<at::Tensor(const std::vector<at::Tensor>&)>;
inline std::vector<at::Tensor> run(const Operation& operation, std::vector<at::Tensor> inputs,
                                   const at::Tensor& upstream) {
  for (at::Tensor& x : inputs) x = x.detach().clone().set_requires_grad(true);
  const at::Tensor y = operation(inputs);
  torch::autograd::backward({y}, {upstream});
  std::vector<at::Tensor> out = {y.detach()};
  for (const at::Tensor& x : inputs) out.push_back(x.grad());
  return out;
}

}  // namespace nf::test

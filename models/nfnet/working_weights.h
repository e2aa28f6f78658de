// The weights as the forward pass multiplies with them: of each convolution the standardized and
// scaled ones, and the biases, in the compute type, made once for all micro-batches until the
// parameters change. All else is read from the parameters themselves.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <span>
#include <vector>

#include "models/nfnet/nfnet.h"

namespace nf::model {

class WorkingWeights {
 public:
  // One leaf of the graph: where its gradient comes from, and the parameters it belongs to.
  struct Leaf {
    at::Tensor tensor;     // requires gradients where its parameters do
    size_t parameter = 0;  // index in Nfnet::parameters()
    ptrdiff_t gain = -1;   // and of the gain, where the tensor is a standardized weight
  };

  // Memory: the convolutions' weights once more, in the compute type. `net` must outlive it; its
  // parameters may not be rebound afterwards. Holds no values before the first refresh().
  WorkingWeights(const Nfnet& net, at::ScalarType compute);

  // Standardizes the parameters' present values. Between a forward pass and its backward pass it
  // may not be called.
  void refresh();

  at::ScalarType type() const { return type_; }
  // What a forward pass reads, in the order of parameter_specs() without gains.
  std::vector<at::Tensor> tensors() const;
  const std::vector<Leaf>& leaves() const { return leaves_; }

  // Writes the gradients of the leaf's parameter, and of the gain where it has one, from that of
  // the leaf: contiguous tensors of the parameters' shapes and type. Returns whether what it wrote
  // is known to be finite; float32 on the CPU is looked at on the way.
  bool write_gradient(const Leaf& leaf, const at::Tensor& gradient, const at::Tensor& of_parameter,
                      const at::Tensor& of_gain) const;

 private:
  const Nfnet& net_;
  at::ScalarType type_;
  std::vector<Leaf> leaves_;
};

}  // namespace nf::model

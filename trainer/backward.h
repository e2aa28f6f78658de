// A backward pass that writes each parameter's gradient to its place of a flat buffer as soon as it
// is known, and tells how far the buffer is final: so the exchange of gradients can begin while the
// pass goes on.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>

#include "models/nfnet/working_weights.h"
#include "trainer/optim/param_group.h"

namespace nf::train {

class Backward {
 public:
  // layout: of the network's parameters. The leaves' gradient slots (at::Tensor::grad) belong to
  // this object from now on. `weights` must outlive it.
  Backward(const model::WorkingWeights& weights, const FlatLayout& layout);
  ~Backward();
  Backward(const Backward&) = delete;
  Backward& operator=(const Backward&) = delete;

  // d loss / d parameters, for a loss computed with the working weights, into `flat` (1-D, float32,
  // layout.elements() long; old content is lost). When flat lies on the parameters' device,
  // on_ready(offset) is called on the way, with falling offsets: all elements from offset on are
  // final. Parameters that are frozen or that the loss does not depend on get zeros. Returns
  // whether all of it is known to be finite; a GPU is not asked.
  bool run(const at::Tensor& loss, const at::Tensor& flat,
           const std::function<void(size_t offset)>& on_ready = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nf::train

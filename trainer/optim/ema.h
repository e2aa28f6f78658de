// Exponential moving average of all parameters with warm-up: E <- d E + (1 - d) W, d = min(D, (1 +
// t) / (10 + t)) (nfnet_spec.md section 7). Computed as E + (1 - d)(W - E): in float32, d = 0.99999
// rounds by up to 3e-8, which in the first form would scale the average by up to 0.3%.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "trainer/optim/param_group.h"

namespace nf::train {

class Ema {
 public:
  // A copy of the parameters' values; or what the flat buffer `arena` holds (FlatLayout).
  Ema(std::vector<Param> params, double max_decay, const at::Tensor& arena = {});

  // Becomes a copy of the parameters' values.
  void restart();

  // 1 - d of the update with index t (from 0). The update's own pass moves the average (Sgd::step).
  double weight(uint64_t t) const;

  double max_decay() const { return max_decay_; }
  const std::vector<Param>& params() const { return params_; }
  // Average of params()[i]: a view, so a checkpoint is restored by copying into it.
  const std::vector<at::Tensor>& values() const { return values_; }
  const at::Tensor& arena() const { return arena_; }

 private:
  std::vector<Param> params_;
  double max_decay_;
  at::Tensor arena_;
  std::vector<at::Tensor> values_;
};

}  // namespace nf::train

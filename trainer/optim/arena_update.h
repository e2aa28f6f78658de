// The fused update (cuda/fused_update.h) for an optimizer whose weights lie in one arena on a
// device: the table of AGC units is sent there once, the rates before each update, and the figures
// of the update come back, which is the one time that the host waits for the device.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "trainer/optim/cuda/fused_update.h"
#include "trainer/optim/param_group.h"

namespace nf::train {

struct SgdOptions;

// Runs the kernels on the device's current stream: CudaPlugin::fused_update with a device bound.
using FusedUpdateLaunch = std::function<void(const FusedUpdate&)>;

class ArenaUpdate {
 public:
  // Values must be float32 views of one arena, as `layout` says; NF_CHECK.
  ArenaUpdate(const std::vector<Param>& params, const FlatLayout& layout, const SgdOptions& options,
              FusedUpdateLaunch launch);

  // One update. gradient, momentum, average: flat, float32, laid out as the weights, on their
  // device; average may be undefined. When a gradient is not finite, nothing is changed.
  UpdateTotals run(const at::Tensor& gradient, const at::Tensor& momentum,
                   const at::Tensor& average, const UpdateRates& rates);

 private:
  FusedUpdateLaunch launch_;
  float* weights_ = nullptr;
  int64_t elements_ = 0, count_ = 0;
  at::Tensor units_, rates_, state_, totals_;  // bytes on the device
};

}  // namespace nf::train

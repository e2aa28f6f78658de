// One training step as trainer/step.cpp makes it, on random images and without data set, ranks and
// checkpoints: so it builds and runs where LibTorch is all there is.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "data_pipeline/loader.h"
#include "models/nfnet/nfnet.h"
#include "models/nfnet/working_weights.h"
#include "trainer/backward.h"
#include "trainer/comm/grad_reducer.h"
#include "trainer/comm/local.h"
#include "trainer/optim/ema.h"
#include "trainer/optim/param_group.h"
#include "trainer/optim/sgd.h"
#include "trainer/resolve_device.h"

namespace nf::bench {

// The network, its parameters in one arena, and the pass that updates them: AGC 0.01, weight decay
// 2e-5, Nesterov momentum 0.9, average of the weights.
class UpdatedNet {
 public:
  UpdatedNet(const model::NfnetSpec& spec, at::Device device);

  model::Nfnet& net() { return net_; }
  const std::vector<train::Param>& params() const { return params_; }
  const train::FlatLayout& layout() const { return layout_; }

  // gradient: flat, laid out as layout(); what counts is `scale` times it. Throws Error(kNotFinite)
  // when it is not finite: a time would say nothing. finite: it is known to be.
  void update(const at::Tensor& gradient, double scale, bool finite);

 private:
  model::Nfnet net_;
  train::FlatLayout layout_;
  at::Tensor weights_;
  std::vector<train::Param> params_;
  train::Sgd sgd_;
  train::Ema ema_;
  uint64_t updates_ = 0;
};

struct StepShape {
  int64_t image_size = 32;
  int64_t batch = 128;
  int64_t micro_batches = 1;  // divides batch
  at::ScalarType compute = at::kFloat;
  bool recompute_blocks = false;
  bool nhwc = false;  // on a GPU: images, and so all activations, in NHWC instead of NCHW
};

struct StepTimes {      // seconds
  double forward = 0;   // images normalized, network, loss
  double backward = 0;  // gradients in their flat buffer
  double update = 0;    // sum over micro-batches, update()
  double total() const { return forward + backward + update; }
};

class TrainingStep {
 public:
  TrainingStep(const model::NfnetSpec& spec, const StepShape& shape, at::Device device);

  // The same images each time. A GPU is waited for behind each part.
  StepTimes run();
  double loss() const { return loss_; }  // of the last step, mean over the batch, before its update

 private:
  at::Tensor flat_tensor(std::span<const float> buffer) const;
  bool forward_backward(const data::MicroBatch& images, const at::Tensor& labels, StepTimes& times);

  StepShape shape_;
  at::Device device_;
  UpdatedNet model_;
  train::LocalCommunicator alone_;
  train::GradientPath path_;
  std::unique_ptr<train::GradReducer> reducer_;
  model::WorkingWeights working_;
  train::Backward backward_;
  std::vector<data::MicroBatch> images_;  // one per micro-batch
  std::vector<at::Tensor> labels_;
  double loss_ = 0;
};

}  // namespace nf::bench

// SGD with Nesterov momentum, AGC and coupled weight decay: the whole update of one step, after the
// gradients were summed and divided by the number of samples. Order: measure -> AGC -> weight decay
// -> momentum -> update (nfnet_spec.md sections 6, 7). Nothing is touched unless every gradient is
// finite.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "trainer/optim/agc.h"
#include "trainer/optim/arena_update.h"
#include "trainer/optim/param_group.h"
#include "trainer/optim/update_pass.h"

namespace nf::train {

struct SgdOptions {
  double momentum = 0.9;
  double weight_decay = 0.0;  // by role: has_weight_decay()
  bool nesterov = true;
  AgcOptions agc{};
};

struct StepStats {
  double grad_norm = 0;            // over all trained parameters, before AGC and weight decay
  double grad_norm_after_agc = 0;  // before weight decay
  int64_t units = 0;               // AGC units and how many were clipped
  int64_t clipped = 0;
  bool finite = true;            // false: no weight, momentum or gradient was changed
  std::string first_non_finite;  // name of the first parameter with a NaN or infinite gradient
};

class Ema;

// What one update takes in.
struct Update {
  double lr = 0;
  at::Tensor gradient{};   // flat, laid out as Sgd::layout(); on any device
  double scale = 1;        // the gradient is `scale` times it
  bool finite = false;     // it is known to be: spares the CPU a look at it
  Ema* average = nullptr;  // follows the weights in the same pass
  uint64_t index = 0;      // of the update, from 0: how far the average has warmed up
};

class Sgd {
 public:
  // All values share one type and device. Momentum starts at zero, in one flat buffer laid out as
  // FlatLayout; `momentum`: that buffer, if given.
  Sgd(std::vector<Param> params, SgdOptions options, const at::Tensor& momentum = {});

  // One update with learning rate lr * param.lr_scale:
  //   g <- AGC(g) + wd W;  M <- momentum M + g;  W <- W - lr (g + momentum M)    (without nesterov:
  //   W - lr M)
  // Gradients keep their values (clipping happens on the way). Deterministic for any number of
  // threads. One fused pass: update_pass.h, or the device's of use_device().
  StepStats step(const Update& update);
  // The same on the CPU with the gradients that lie in the params, and no average.
  StepStats step(double lr);

  // Every update from now on is the device's. Weights elsewhere than on the CPU need it.
  void use_device(FusedUpdateLaunch launch);
  // Every update from now on is done together with other ranks: weights, momentum and average lie
  // in memory common to all of them.
  void use_share(UpdateShare share) { share_ = std::move(share); }

  const std::vector<Param>& params() const { return params_; }
  const SgdOptions& options() const { return options_; }
  const FlatLayout& layout() const { return layout_; }

  // Momentum of params()[i]: a view, so a checkpoint is restored by copying into it.
  const std::vector<at::Tensor>& momentum() const { return momentum_; }
  // The same by name; NF_CHECK when there is no such parameter.
  const at::Tensor& momentum(const std::string& name) const;
  const at::Tensor& momentum_arena() const { return momentum_arena_; }

 private:
  StepStats on_cpu(const Update& update, const std::vector<at::Tensor>& gradients);
  StepStats on_device(const Update& update, const at::Tensor& gradient);

  std::vector<Param> params_;
  SgdOptions options_;
  FlatLayout layout_;
  at::Tensor momentum_arena_;
  std::vector<at::Tensor> momentum_;
  std::unique_ptr<ArenaUpdate> device_update_;  // null: the CPU's
  std::optional<UpdateShare> share_;
};

}  // namespace nf::train

// The whole update of a step on a GPU, over flat arenas (trainer/optim/param_group.h): norms of all
// units, AGC factors and the finite check, then weight decay, momentum, update and average in one
// pass. Run by CudaPlugin::fused_update on LibTorch's current stream of the device; deterministic:
// the same bits for any grid. Three launches, no allocation, nothing that waits for the host; what
// changes from step to step lies in device memory, so a captured graph can be replayed. No CUDA
// types here.
#pragma once

#include <cstdint>

namespace nf::train {

// A run of neighbouring elements that is clipped together: an AGC unit (agc.h), or a part of a
// parameter that is not clipped. All pointers below are device memory; the caller owns it.
struct UpdateUnit {
  int64_t begin;  // in the arenas
  int64_t size;
  int32_t parameter;  // its index, for UpdateTotals
  bool clipped;       // AGC applies
  bool frozen;        // only the average follows
  double weight_decay;
  double lr_scale;
};

struct UpdateUnitState {
  double grad_squares;
  double factor;  // of the gradient
  bool over;      // above its limit
};

// The figures of StepStats (sgd.h).
struct UpdateTotals {
  double grad_squares, clipped_grad_squares;
  int64_t units, clipped;
  int64_t first_not_finite;  // parameter; -1: all finite. Otherwise nothing was changed.
};

struct UpdateRates {
  double gradient_scale;  // the gradient is this times arenas.grad
  double lr;
  double momentum;
  double average_weight;  // 1 - d of ema.h
  double clip, clip_eps;  // AgcOptions; clip <= 0: none
  bool nesterov;
};

struct UpdateArenas {
  float* weight;
  const float* grad;  // the sum over the batch; stays as it is
  float* momentum;
  float* average;  // null: none
};

struct FusedUpdate {
  UpdateArenas arenas;
  const UpdateUnit* units;  // [count], in the order of the parameters
  int64_t count;
  const UpdateRates* rates;
  UpdateUnitState* state;  // [count], work space
  UpdateTotals* totals;
};

}  // namespace nf::train

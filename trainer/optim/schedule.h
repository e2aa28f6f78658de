// Learning rate and EMA decay as pure functions of the step, so a resumed run needs no schedule
// state. Source: nfnet_spec.md section 7 (linear warm-up, cosine to zero). Torch-free.
#pragma once

#include <cstdint>

namespace nf::train {

struct Schedule {
  double max_lr = 0.1;
  double total_steps = 1;   // T; the rate reaches 0 at step T, the last step taken is T - 1
  double warmup_steps = 0;  // w, may be fractional; the first step of a warm-up has rate 0
};

// Rate of the update with index `step` (from 0): max_lr t / w for t <= w, then
// max_lr / 2 (1 + cos(pi (t - w) / (T - w))); 0 from step T on. Requires 0 <= w, 0 < T.
double learning_rate(const Schedule& schedule, uint64_t step);

// min(max_decay, (1 + t) / (10 + t)); t is the index of the update just made, from 0.
double ema_decay(double max_decay, uint64_t t);

}  // namespace nf::train

// See schedule.h.
#include "trainer/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/check.h"

namespace nf::train {

double learning_rate(const Schedule& s, uint64_t step) {
  NF_CHECK(s.total_steps > 0 && s.warmup_steps >= 0, "a schedule needs steps");
  const auto t = static_cast<double>(step);
  if (s.warmup_steps > 0 && t <= s.warmup_steps) return s.max_lr * t / s.warmup_steps;
  if (t >= s.total_steps) return 0.0;
  const double progress = (t - s.warmup_steps) / (s.total_steps - s.warmup_steps);
  return 0.5 * s.max_lr * (1.0 + std::cos(std::numbers::pi * progress));
}

double ema_decay(double max_decay, uint64_t t) {
  const auto n = static_cast<double>(t);
  return std::min(max_decay, (1.0 + n) / (10.0 + n));
}

}  // namespace nf::train

// Made sweeps with a known truth: L = E + A / F^alpha + B / D^beta, the grid of the shipped table,
// a learning-rate optimum that falls with epochs and size, Gaussian noise on ln loss. For recovery
// and coverage; the shipped table nfnet_like_sweep.csv looks like one of these.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "analysis/run_table.h"
#include "core/rng.h"

namespace nf::test {

struct Truth {
  double E = 1.6, A = 1050, B = 304, alpha = 0.30, beta = 0.30;
  double noise = 0.00125;
  double loss(double size, double images) const {
    return E + A * std::pow(size, -alpha) + B * std::pow(images, -beta);
  }
};

inline constexpr double kImagesPerEpoch = 3999870000.0;
inline const std::vector<std::pair<std::string, double>>& made_models() {
  static const std::vector<std::pair<std::string, double>> models = {
      {"nfnet_f0", 5.6925e10},     {"nfnet_f1", 1.0464e11}, {"nfnet_f3", 2.0004e11},
      {"nfnet_f3plus", 3.4152e11}, {"nfnet_f7", 3.9084e11}, {"nfnet_f7plus", 6.6708e11}};
  return models;
}

inline analysis::RunSelection made_sweep(const Truth& truth, uint64_t seed) {
  analysis::RunSelection selection;
  PositionRng rng(seed, Stream::kTest, 0);
  int number = 0;
  for (const auto& [model, size] : made_models())
    for (const double epochs : {0.25, 0.5, 1.0, 2.0, 4.0, 8.0}) {
      const double f = std::log2(size / 5.6925e10), e = std::log2(epochs);
      const double best = std::min(std::log2(1.6), 0.8 - 0.08 * f - 0.35 * e - 0.05 * f * e);
      const int k0 = static_cast<int>(std::round(best - std::log2(1.6)));
      for (int k = k0 - 2; k <= k0 + 1; ++k) {
        const double off = std::log2(1.6) + k - best;
        analysis::Run run;
        run.run = std::string("m").append(std::to_string(1000 + ++number));
        run.model = model;
        run.train_flops_per_image = size;
        run.epochs = epochs;
        run.images_seen = epochs * kImagesPerEpoch;
        run.learning_rate = 1.6 * std::exp2(k);
        run.batch = 4096;
        run.image_size = 224;
        run.train_flops = size * run.images_seen;
        run.device_hours = run.train_flops / (3600 * 5.5e13);
        run.cost_usd = run.device_hours * 0.485;
        run.heldout_loss =
            truth.loss(size, run.images_seen) *
            std::exp((off < 0 ? 0.0118 : 0.0240) * off * off + truth.noise * rng.normal());
        selection.used.push_back(run);
      }
    }
  return selection;
}

}  // namespace nf::test

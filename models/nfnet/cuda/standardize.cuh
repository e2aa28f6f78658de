// Scaled weight standardization of one output's weights by one block of threads, forward and
// backward. Formulas: models/nfnet/standardize.cpp. Each thread sums its elements in float32, the
// block's sums are added in float64 in a fixed order: the same bits for any grid.
#pragma once

#include <cmath>

#include "core/host_device.h"

namespace nf::model {

struct StandardizeRule {
  int64_t n;  // weights of an output
  bool timm;
  float scale;
};

struct RowScale {
  float mean, inv;
  bool floored;  // dm's floor acts: inv is constant
};

NF_HOST_DEVICE RowScale row_scale(double sum, double squares, const StandardizeRule& rule) {
  constexpr float kFloorDm = 1e-4F, kEpsTimm = 1e-5F;
  const float mean = static_cast<float>(sum), q = static_cast<float>(squares);
  if (rule.timm) return {mean, 1.0F / sqrtf(q + static_cast<float>(rule.n) * kEpsTimm), false};
  return {mean, 1.0F / sqrtf(fmaxf(q, kFloorDm)), q <= kFloorDm};
}

// out = scale gain inv (w - mean) for one output; `scratch`: kReduceScratch doubles of the block.
template <class Block, class Out>
NF_HOST_DEVICE void standardize_row(const Block& block, double* scratch,
                                    const StandardizeRule& rule, const float* w, float gain,
                                    Out* out) {
  typename Block::template PerThread<double> part;
  const int64_t n = rule.n;
  block.each([&](int t) {
    float sum = 0;
    for (int64_t i = t; i < n; i += Block::kThreads) sum += w[i];
    part[t] = static_cast<double>(sum);
  });
  const double mean = block_sum(block, part, scratch) / static_cast<double>(n);
  const float m = static_cast<float>(mean);
  block.each([&](int t) {
    float squares = 0;
    for (int64_t i = t; i < n; i += Block::kThreads) squares += (w[i] - m) * (w[i] - m);
    part[t] = static_cast<double>(squares);
  });
  const RowScale s = row_scale(mean, block_sum(block, part, scratch), rule);
  const float factor = rule.scale * gain * s.inv;
  block.each([&](int t) {
    for (int64_t i = t; i < n; i += Block::kThreads) store(out[i], (w[i] - m) * factor);
  });
}

// The gradients of the weights and of the gain, from that of `out`. scratch: twice as much.
template <class Block, class Grad>
NF_HOST_DEVICE void standardize_row_backward(const Block& block, double* scratch,
                                             const StandardizeRule& rule, const float* w,
                                             float gain, const Grad* grad, float* grad_w,
                                             float* grad_gain) {
  typename Block::template PerThread<double> first, second;
  double* const scratch2 = scratch + kReduceScratch<Block>;
  const int64_t n = rule.n;
  block.each([&](int t) {
    float sum = 0, grad_sum = 0;
    for (int64_t i = t; i < n; i += Block::kThreads) {
      sum += w[i];
      grad_sum += load(grad[i]);
    }
    first[t] = static_cast<double>(sum);
    second[t] = static_cast<double>(grad_sum);
  });
  const double mean = block_sum(block, first, scratch) / static_cast<double>(n);
  const double grad_mean = block_sum(block, second, scratch2) / static_cast<double>(n);
  const float m = static_cast<float>(mean), g = static_cast<float>(grad_mean);
  block.each([&](int t) {
    float squares = 0, product = 0;
    for (int64_t i = t; i < n; i += Block::kThreads) {
      const float x = w[i] - m;
      squares += x * x;
      product += (load(grad[i]) - g) * x;  // the mean changes nothing but the rounding
    }
    first[t] = static_cast<double>(squares);
    second[t] = static_cast<double>(product);
  });
  const RowScale s = row_scale(mean, block_sum(block, first, scratch), rule);
  const float u = static_cast<float>(block_sum(block, second, scratch2));
  const float a = rule.scale * gain * s.inv;
  const float b = s.floored ? 0.0F : a * s.inv * s.inv * u;
  block.each([&](int t) {
    for (int64_t i = t; i < n; i += Block::kThreads)
      grad_w[i] = a * (load(grad[i]) - g) - b * (w[i] - m);
    if (t == 0) *grad_gain = rule.scale * s.inv * u;
  });
}

}  // namespace nf::model

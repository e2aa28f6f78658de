// Losses of a micro-batch as sums, never means: the step divides once by the global count of valid
// samples, so the result does not depend on how a batch is cut into micro-batches. Softmax cross
// entropy: nfnet_spec.md section 5. Sigmoid cross entropy: sum over classes per sample, as
// big_vision's sigmoid_xent.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>

namespace nf::train {

struct LossResult {
  at::Tensor sum;         // scalar, differentiable: sum over samples of weight * loss
  at::Tensor per_sample;  // [B], detached, without the weights
};

// Everything lies on the logits' device.
struct SoftmaxTargets {
  at::Tensor labels{};      // int64 [B], in [0, C)
  at::Tensor mix_labels{};  // int64 [B], or undefined: no mixing
  at::Tensor ratio{};       // [B], share of `labels` against `mix_labels`; undefined without mixing
  at::Tensor
      weights;  // [B], 0 for a bad sample (its label may then be anything); undefined = all 1
};

// logits [B, C], taken to float32 when they are of a shorter type. Target: r y1 + (1 - r) y2, then
// (1 - s) y + s / C.
LossResult softmax_cross_entropy(const at::Tensor& logits, const SoftmaxTargets& targets,
                                 double smoothing);

// targets [B, C] in [0, 1] (multi-hot, mixed or smoothed by the caller); weights as above, may be
// undefined.
LossResult sigmoid_cross_entropy(const at::Tensor& logits, const at::Tensor& targets,
                                 const at::Tensor& weights);

// Multi-hot [B, C] float32 targets (CPU) from a micro-batch's concatenated labels: sample b has
// labels[offsets[b] .. offsets[b + 1]). A label outside [0, classes) is a programming error: the
// data set knows its classes.
at::Tensor multi_hot(std::span<const uint32_t> offsets, std::span<const int32_t> labels,
                     int64_t classes);

// How often the label is the best, or among the five best (all, when there are fewer classes), over
// samples with weight > 0. Ties count against the sample: it is correct when fewer than k other
// classes have a score >= its own; a NaN score never is.
struct CorrectCounts {
  at::Tensor top1;  // int64 scalars on the logits' device: fetched when the caller likes
  at::Tensor top5;
};
CorrectCounts count_correct(const at::Tensor& logits, const at::Tensor& labels,
                            const at::Tensor& weights);

}  // namespace nf::train

// See loss.h.
#include "trainer/optim/loss.h"

#include <ATen/core/grad_mode.h>

#include "core/check.h"

namespace nf::train {
namespace {

at::Tensor at_least_float32(const at::Tensor& t) {
  return t.scalar_type() == at::kDouble ? t : t.to(at::kFloat);
}

// A sample of weight 0 may carry any label: class 0 stands in, so that gather stays inside the row.
at::Tensor safe_labels(const at::Tensor& labels, const at::Tensor& weights) {
  NF_CHECK(labels.scalar_type() == at::kLong && labels.dim() == 1, "labels are int64 [B]");
  return weights.defined() ? labels.masked_fill(weights.le(0), 0) : labels;
}

LossResult weighted(const at::Tensor& per_sample, const at::Tensor& weights) {
  if (!weights.defined()) return {per_sample.sum(), per_sample.detach()};
  return {(per_sample * weights.to(per_sample.scalar_type())).sum(), per_sample.detach()};
}

}  // namespace

LossResult softmax_cross_entropy(const at::Tensor& logits, const SoftmaxTargets& targets,
                                 double smoothing) {
  NF_CHECK(logits.dim() == 2 && targets.labels.size(0) == logits.size(0), "logits are [B, C]");
  NF_CHECK(targets.mix_labels.defined() == targets.ratio.defined(),
           "mixing needs second labels and ratios");
  const at::Tensor log_p = at_least_float32(logits).log_softmax(1);
  const auto at_labels = [&](const at::Tensor& labels) {
    return log_p.gather(1, safe_labels(labels, targets.weights).unsqueeze(1)).squeeze(1);
  };
  at::Tensor hit = at_labels(targets.labels);
  if (targets.ratio.defined()) {
    const at::Tensor ratio = targets.ratio.to(log_p.scalar_type());
    hit = ratio * hit + (1 - ratio) * at_labels(targets.mix_labels);
  }
  at::Tensor loss = hit.neg();
  if (smoothing != 0) loss = (1 - smoothing) * loss - smoothing * log_p.mean(1);
  return weighted(loss, targets.weights);
}

LossResult sigmoid_cross_entropy(const at::Tensor& logits, const at::Tensor& targets,
                                 const at::Tensor& weights) {
  NF_CHECK(logits.dim() == 2 && targets.sizes() == logits.sizes(), "logits and targets are [B, C]");
  const at::Tensor z = at_least_float32(logits);
  const at::Tensor per_class = at::binary_cross_entropy_with_logits(z, targets.to(z.scalar_type()),
                                                                    {}, {}, at::Reduction::None);
  return weighted(per_class.sum(1), weights);
}

at::Tensor multi_hot(std::span<const uint32_t> offsets, std::span<const int32_t> labels,
                     int64_t classes) {
  NF_CHECK(!offsets.empty() && offsets.back() <= labels.size(), "offsets do not fit the labels");
  const auto samples = static_cast<int64_t>(offsets.size()) - 1;
  at::Tensor out = at::zeros({samples, classes}, at::kFloat);
  float* row = out.data_ptr<float>();
  for (size_t b = 0; b + 1 < offsets.size(); ++b, row += classes)
    for (uint32_t k = offsets[b]; k < offsets[b + 1]; ++k) {
      NF_CHECK(labels[k] >= 0 && labels[k] < classes, "a label is outside the classes");
      row[labels[k]] = 1.0f;
    }
  return out;
}

CorrectCounts count_correct(const at::Tensor& logits, const at::Tensor& labels,
                            const at::Tensor& weights) {
  const at::NoGradGuard no_grad;
  const at::Tensor own = logits.gather(1, safe_labels(labels, weights).unsqueeze(1));
  const at::Tensor not_below = logits.ge(own).sum(1);  // its own class among them
  at::Tensor valid = own.squeeze(1).isnan().logical_not();
  if (weights.defined()) valid = valid.logical_and(weights.gt(0));
  const auto count = [&](int64_t k) { return not_below.le(k).logical_and(valid).sum(); };
  return {count(1), count(5)};
}

}  // namespace nf::train

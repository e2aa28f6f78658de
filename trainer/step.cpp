// See step.h. Order of a step: design.md section 4.
#include "trainer/step.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>

#include "core/check.h"
#include "core/error.h"
#include "core/timeline.h"
#include "models/nfnet/to_device.h"
#include "trainer/agreement.h"
#include "trainer/comm/control.h"
#include "trainer/optim/loss.h"

namespace nf::train {
namespace {

[[noreturn]] void throw_not_finite(const StepResult& r) {
  throw AgreedError(ExitCode::kNotFinite, "step " + std::to_string(r.step),
                    r.not_finite + " is not finite in the batch of positions [" +
                        std::to_string(r.begin) + ", " + std::to_string(r.end) +
                        "); weights are those of step " + std::to_string(r.step - 1),
                    "lower optimizer.learning_rate or optimizer.agc_clip, or set "
                    "train.on_non_finite = \"skip\"; nf-audit where tells which samples these are");
}

at::Tensor as_tensor(std::span<const float> buffer, at::Device device) {
  return at::from_blob(const_cast<float*>(buffer.data()), {static_cast<int64_t>(buffer.size())},
                       at::TensorOptions(at::kFloat).device(device));
}

struct Targets {
  at::Tensor first;  // int64 [count], the first label
  at::Tensor all;    // [count, classes], sigmoid only
  at::Tensor weights;
  at::Tensor mix_first, ratio;  // with mixing: of the second image, and the share of the first
};

at::Tensor first_labels(std::span<const uint32_t> offsets, std::span<const int32_t> labels) {
  at::Tensor out = at::empty({static_cast<int64_t>(offsets.size()) - 1}, at::kLong);
  for (size_t i = 0; i + 1 < offsets.size(); ++i) out.data_ptr<int64_t>()[i] = labels[offsets[i]];
  return out;
}

at::Tensor floats(const std::vector<float>& values) {
  at::Tensor out = at::empty({static_cast<int64_t>(values.size())}, at::kFloat);
  std::copy(values.begin(), values.end(), out.data_ptr<float>());
  return out;
}

Targets make_targets(const Trainer& t, const data::MicroBatch& batch) {
  Targets out;
  out.first = first_labels(batch.label_offset, batch.labels);
  out.weights = floats(batch.weights);
  const int64_t classes = t.net.spec().classes;
  const bool sigmoid = t.config.loss.kind == "sigmoid";
  if (sigmoid) out.all = multi_hot(batch.label_offset, batch.labels, classes);
  if (!batch.mix_ratio.empty()) {
    out.ratio = floats(batch.mix_ratio);
    out.mix_first = first_labels(batch.mix_label_offset, batch.mix_labels);
    const at::Tensor r = out.ratio.unsqueeze(1);
    if (sigmoid)
      out.all =
          r * out.all + (1 - r) * multi_hot(batch.mix_label_offset, batch.mix_labels, classes);
  }
  for (at::Tensor* x : {&out.first, &out.all, &out.weights, &out.mix_first, &out.ratio})
    if (x->defined()) *x = model::to_device(*x, t.device);
  return out;
}

LossResult batch_loss(const Trainer& t, const at::Tensor& logits, const Targets& targets) {
  if (t.config.loss.kind == "sigmoid")
    return sigmoid_cross_entropy(logits, targets.all, targets.weights);
  return softmax_cross_entropy(logits,
                               {targets.first, targets.mix_first, targets.ratio, targets.weights},
                               t.config.loss.label_smoothing);
}

model::ForwardOptions training_options(const Trainer& t, std::span<const uint64_t> positions) {
  model::ForwardOptions options;
  options.training = true;
  options.compute = t.working.type();
  options.weights = &t.working;
  options.dropout = t.config.model.dropout;
  options.stochastic_depth = t.config.model.stochastic_depth;
  options.seed = static_cast<uint64_t>(t.config.run.seed);
  options.positions = positions;
  options.recompute_blocks = t.recompute_blocks;
  return options;
}

// The first `count` samples of the targets.
Targets first_of(const Targets& all, int64_t count) {
  const auto cut = [&](const at::Tensor& t) { return t.defined() ? t.narrow(0, 0, count) : t; };
  Targets out = all;
  for (at::Tensor* t : {&out.first, &out.mix_first, &out.ratio, &out.all, &out.weights})
    *t = cut(*t);
  return out;
}

// SAM: moves the weights uphill by the gradient of the micro-batch's first examples, whose dropped
// branches are those of the second pass (they go by position).
void ascend(Trainer& t, const at::Tensor& images, const Targets& targets,
            std::span<const uint64_t> positions, Timeline* timeline) {
  const Timeline::Span span(timeline, "ascent");
  t.working.refresh();
  const auto n = t.sam.ascent_count(images.size(0));
  const at::Tensor logits = t.net.forward(
      images.narrow(0, 0, n), training_options(t, positions.first(static_cast<size_t>(n))));
  t.backward.run(batch_loss(t, logits, first_of(targets, n)).sum, t.sam.gradient());
  t.sam.perturb();
  t.working.refresh();
}

// A micro-batch's figures on the device, which may still be computing them.
struct PendingSums {
  at::Tensor loss, top1;        // undefined: no sample
  bool finite_gradient = true;  // is known to be

  LeafSums wait() const {
    if (!loss.defined()) return {};
    return {.loss = loss.item<double>(), .top1 = static_cast<double>(top1.item<int64_t>())};
  }
};

// Writes the gradient of the micro-batch's summed loss into the reducer's buffer, which may begin
// to exchange it on the way.
PendingSums forward_backward(Trainer& t, const data::MicroBatch& batch, const at::Tensor& images,
                             Timeline* timeline) {
  const at::Tensor flat = as_tensor(t.reducer.buffer(), t.gradient_path.device);
  if (batch.count == 0) {
    flat.zero_();
    return {};
  }
  std::vector<uint64_t> positions(static_cast<size_t>(batch.count));
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = batch.range.begin + i;
  const Targets targets = make_targets(t, batch);
  if (t.sam.on()) ascend(t, images, targets, positions, timeline);
  at::Tensor logits;
  LossResult loss;
  bool finite = false;
  {
    const Timeline::Span span(timeline, "forward");
    logits = t.net.forward(images, training_options(t, positions));
    loss = batch_loss(t, logits, targets);
  }
  {
    const Timeline::Span span(timeline, "backward");
    finite = t.backward.run(loss.sum, flat, [&](size_t offset) { t.reducer.ready_from(offset); });
  }
  if (t.sam.on()) t.sam.restore();
  at::NoGradGuard no_grad;
  return {.loss = loss.sum.detach(),
          .top1 = count_correct(logits.detach(), targets.first, targets.weights).top1,
          .finite_gradient = finite};
}

// The rank's micro-batches: gradients go to the reducer, figures to `own`.
Control run_micro_batches(Trainer& t, const StepHooks& hooks, StepResult& r,
                          std::vector<LeafSums>& own) {
  Control control;
  std::vector<PendingSums> pending;
  if (!t.sam.on()) t.working.refresh();
  for (uint64_t m = t.plan.first(); m < t.plan.last(); ++m) {
    std::optional<ImageFeed::Item> item;
    {
      const Timeline::Span span(hooks.timeline, "wait for data");
      const Waiting waiting(hooks.activity, Wait::kData);
      item = t.feed->next();
    }
    NF_CHECK(item.has_value(), "the plan ended before the run");
    data::MicroBatch& batch = item->batch;
    if (hooks.taken) hooks.taken(r.step, batch);
    pending.push_back(forward_backward(t, batch, item->images, hooks.timeline));
    if (!t.device.is_cpu()) {  // the host is free, the device is not
      const Waiting waiting(hooks.activity, Wait::kData);
      t.feed->fetch_ahead();
    }
    t.reducer.add(m, pending.back().finite_gradient);
    control.sample_digest += data::batch_digest(batch.range.begin, batch.samples);
    control.valid_samples += batch.count - static_cast<int64_t>(batch.bad.size());
    r.bad_here.insert(r.bad_here.end(), batch.bad.begin(), batch.bad.end());
    t.loader->recycle(std::move(batch));
  }
  for (const PendingSums& sums : pending) own.push_back(sums.wait());
  return control;
}

// The figures that all ranks share, from what each brought.
void unite(Trainer& t, const Control& control, const std::vector<LeafSums>& leaves, StepResult& r) {
  r.digest = control.sample_digest;
  r.bad = static_cast<int64_t>(r.end - r.begin) - control.valid_samples;
  r.stop = control.stop_flags;
  r.slowest_seconds = control.step_seconds;
  r.error_code = control.error_code;
  const double valid = std::max<double>(1.0, static_cast<double>(control.valid_samples));
  std::vector<double> losses, hits;
  for (size_t m = 0; m < leaves.size(); ++m) {
    losses.push_back(leaves[m].loss);
    hits.push_back(leaves[m].top1);
    if (!std::isfinite(leaves[m].loss) && r.not_finite.empty()) {
      const auto range = t.plan.range(r.step - 1, m);
      r.not_finite = fmt::format("the loss of positions [{}, {})", range->begin, range->end);
    }
  }
  r.loss = GradReducer::tree_sum(losses) / valid;
  r.top1 = GradReducer::tree_sum(hits) / valid;
}

}  // namespace

StepResult train_step(Trainer& t, const StepHooks& hooks) {
  StepResult r;
  r.step = t.step + 1;
  r.begin = t.position();
  r.end = std::min(r.begin + t.plan.batch_size, t.plan.end_position);
  r.learning_rate = learning_rate(t.schedule, t.step);
  std::vector<LeafSums> own, leaves;
  Control mine = run_micro_batches(t, hooks, r, own);
  std::optional<Waiting> waiting(std::in_place, hooks.activity, Wait::kRanks);
  const std::span<const float> sum = t.reducer.finish();
  mine.known_finite = t.reducer.finite();  // each rank knows it of its part of the sum
  mine.stop_flags = hooks.stop_request ? hooks.stop_request() : 0;
  mine.error_code = hooks.error_code ? hooks.error_code() : 0;
  mine.step_seconds = hooks.last_step_seconds;
  const Control control = agree(t.comm, mine, t.plan.micro_batches, own, &leaves);
  waiting.reset();
  unite(t, control, leaves, r);

  const Timeline::Span span(hooks.timeline, "update");
  at::NoGradGuard no_grad;
  if (t.shared_state) t.shared_state->watch(hooks.activity);
  if (r.not_finite.empty()) {  // AGC, decay, momentum, update, average: only if all is finite
    const double valid = std::max<double>(1.0, static_cast<double>(control.valid_samples));
    const StepStats stats = t.sgd.step({.lr = r.learning_rate,
                                        .gradient = as_tensor(sum, t.gradient_path.device),
                                        .scale = 1.0 / valid,
                                        .finite = control.known_finite,
                                        .average = t.ema.get(),
                                        .index = t.step});
    if (!stats.finite) r.not_finite = "the gradient of " + stats.first_non_finite;
    r.grad_norm = stats.grad_norm;
    r.agc_units = stats.units;
    r.agc_clipped = stats.clipped;
  }
  t.reducer.release();
  if (!r.not_finite.empty() && t.config.train.on_non_finite == "stop") throw_not_finite(r);
  t.step = r.step;
  return r;
}

}  // namespace nf::train

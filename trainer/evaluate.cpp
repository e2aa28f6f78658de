// See evaluate.h.
#include "trainer/evaluate.h"

#include <ATen/core/grad_mode.h>

#include <bit>
#include <cmath>

#include "trainer/normalize.h"
#include "trainer/optim/loss.h"

namespace nf::train {
namespace {

constexpr size_t kFields = 5;  // images, loss, squared loss, top-1, top-5

void add_chunk(const model::Nfnet& net, const data::MicroBatch& batch, const at::Tensor& logits,
               const EvalOptions& options, std::span<double, kFields> out) {
  const at::Tensor labels = at::empty({batch.count}, at::kLong),
                   weights = at::empty({batch.count}, at::kFloat);
  for (int64_t i = 0; i < batch.count; ++i) {
    labels.data_ptr<int64_t>()[i] = batch.labels[batch.label_offset[static_cast<size_t>(i)]];
    weights.data_ptr<float>()[i] = batch.weights[static_cast<size_t>(i)];
  }
  const at::Tensor on_device = labels.to(logits.device()), w = weights.to(logits.device());
  const LossResult loss =
      options.loss_kind == "sigmoid"
          ? sigmoid_cross_entropy(
                logits,
                multi_hot(batch.label_offset, batch.labels, net.spec().classes).to(logits.device()),
                w)
          : softmax_cross_entropy(logits, {on_device, {}, {}, w}, 0.0);
  const CorrectCounts correct = count_correct(logits, on_device, w);
  const at::Tensor losses = loss.per_sample.to(at::kCPU, at::kDouble).contiguous();
  for (int64_t i = 0; i < batch.count; ++i) {  // in order, so the sum's bits are fixed
    if (batch.weights[static_cast<size_t>(i)] == 0) continue;
    const double l = losses.data_ptr<double>()[i];
    out[0] += 1;
    out[1] += l;
    out[2] += l * l;
  }
  out[3] = static_cast<double>(correct.top1.item<int64_t>());
  out[4] = static_cast<double>(correct.top5.item<int64_t>());
}

}  // namespace

EvalResult evaluate(const model::Nfnet& net, const data::ShardDataset& set,
                    const EvalOptions& options, Communicator& comm, const EvalTap& tap) {
  at::NoGradGuard no_grad;
  const uint64_t chunk = static_cast<uint64_t>(options.chunk),
                 chunks = (set.size() + chunk - 1) / chunk;
  data::SamplerOptions in_order;
  in_order.samples = set.size();
  in_order.shuffle = data::Shuffle::kNone;
  const data::Sampler sampler(in_order);
  data::Loader loader(set, sampler,
                      data::eval_plan(set.size(), chunk, static_cast<uint64_t>(comm.rank()),
                                      static_cast<uint64_t>(comm.size())),
                      options.preprocess, 0, {options.workers, 2});
  std::vector<double> sums(chunks * kFields, 0.0);
  model::ForwardOptions forward;  // evaluation is always float32
  while (const auto batch = loader.next()) {
    const at::Tensor images = normalized_images(*batch, net.device());
    const at::Tensor logits = net.forward(images, forward);
    add_chunk(net, *batch, logits, options,
              std::span<double, kFields>(&sums[batch->range.begin / chunk * kFields], kFields));
    if (tap) tap(*batch, images, logits);
  }
  // Each chunk has one owner and the others hold zero bits, so an integer sum moves the doubles
  // unchanged.
  std::vector<int64_t> bits(sums.size());
  for (size_t i = 0; i < sums.size(); ++i) bits[i] = std::bit_cast<int64_t>(sums[i]);
  comm.all_reduce_sum(bits);
  std::array<double, kFields> total{};
  for (size_t i = 0; i < bits.size(); ++i) total[i % kFields] += std::bit_cast<double>(bits[i]);

  EvalResult r;
  r.images = static_cast<uint64_t>(total[0]);
  r.bad = set.size() - r.images;
  const double n = std::max(1.0, total[0]);
  r.loss = total[1] / n;
  r.loss_standard_error = std::sqrt(std::max(0.0, total[2] / n - r.loss * r.loss) / n);
  r.top1 = total[3] / n;
  r.top5 = total[4] / n;
  return r;
}

Json to_json(const EvalResult& r) {
  return {{"loss", r.loss},     {"loss_se", r.loss_standard_error},
          {"top1", r.top1},     {"top5", r.top5},
          {"images", r.images}, {"bad_samples", r.bad}};
}

}  // namespace nf::train

// See dry_run.h.
#include "trainer/dry_run.h"

#include <fmt/format.h>

#include <bit>

#include "core/error.h"
#include "data_pipeline/sampler.h"
#include "data_pipeline/shard_dataset.h"
#include "models/nfnet/cost.h"
#include "trainer/train_cost.h"

namespace nf::train {

RunEstimate estimate_run(const RunConfig& c, int ranks) {
  const data::ShardDataset set(c.data.path, c.data.split);
  if (!c.evaluate.split.empty()) data::ShardDataset(c.data.path, c.evaluate.split);
  if (ranks > c.batch.micro_batches)
    throw Error(ExitCode::kUsage, "batch.micro_batches",
                std::to_string(ranks) + " ranks, but a batch has only " +
                    std::to_string(c.batch.micro_batches) + " micro-batches",
                "start at most that many ranks, or raise batch.micro_batches");
  const auto spec = model_spec(c.model, static_cast<int64_t>(set.class_names().size()));
  RunEstimate e;
  e.samples = set.size();
  e.positions = data::positions_in_run(c.schedule.epochs, set.size());
  const auto batch = static_cast<uint64_t>(c.batch.size);
  e.steps = (e.positions + batch - 1) / batch;
  if (c.limit.steps > 0) e.steps = std::min(e.steps, static_cast<uint64_t>(c.limit.steps));
  e.parameters = model::model_cost(spec).parameters;
  data::TrainPlan plan;
  plan.batch_size = batch;
  plan.sizes = size_stages(c.schedule, e.positions);
  const uint64_t end = std::min(e.positions, e.steps * batch);
  e.train_flops_per_image = mean_flops_per_image(c, spec, plan, end);
  e.train_flops = train_flops(c, spec, plan, end);
  const int64_t micro_batch = c.batch.size / c.batch.micro_batches;
  const auto own = static_cast<unsigned>((c.batch.micro_batches + ranks - 1) / ranks);
  const double copies = 3.0 + (c.ema.decay > 0 ? 1 : 0) + std::bit_width(own) + 1;
  e.weights_bytes = 4.0 * static_cast<double>(e.parameters) * copies;
  e.activation_bytes = model::activation_bytes_estimate(spec, c.data.image_size, micro_batch,
                                                        c.precision.compute == "bfloat16" ? 2 : 4);
  e.batch_bytes = static_cast<double>(micro_batch * c.data.image_size * c.data.image_size * 3 *
                                      (c.data.prefetch + 1));
  return e;
}

std::string format_estimate(const RunEstimate& e, const RunConfig& c, int ranks) {
  constexpr double kMiB = 1048576.0;
  return fmt::format(
      "\n# {} on {} rank(s)\n"
      "# parameters            {}\n"
      "# samples               {} in split {}\n"
      "# images to be seen     {} ({:.4g} epochs)\n"
      "# steps                 {} of {} images in {} micro-batches\n"
      "# training FLOPs        {:.4g} an image, {:.4g} in all\n"
      "# memory per rank       {:.0f} MiB weights and buffers, {:.0f} MiB activations of a "
      "micro-batch, {:.0f} MiB images\n",
      c.model.name, ranks, e.parameters, e.samples, c.data.split, e.positions, c.schedule.epochs,
      e.steps, c.batch.size, c.batch.micro_batches, e.train_flops_per_image, e.train_flops,
      e.weights_bytes / kMiB, e.activation_bytes / kMiB, e.batch_bytes / kMiB);
}

Json to_json(const RunEstimate& e) {
  return {{"parameters", e.parameters},
          {"samples", e.samples},
          {"images", e.positions},
          {"steps", e.steps},
          {"train_flops_per_image", e.train_flops_per_image},
          {"train_flops", e.train_flops},
          {"memory_bytes", e.weights_bytes + e.activation_bytes + e.batch_bytes}};
}

}  // namespace nf::train

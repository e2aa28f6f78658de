// See dry_run.h.
#include "trainer/dry_run.h"

#include <fmt/format.h>

#include "core/error.h"
#include "data_pipeline/sampler.h"
#include "data_pipeline/shard_dataset.h"
#include "models/nfnet/cost.h"
#include "trainer/resolve_device.h"
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
  e.recompute = choose_recompute(c, spec, ranks, ranks, resolve_device(c.run.device, 0).is_cpu());
  e.memory = estimate_memory(c, spec, ranks, e.steps, e.recompute);
  e.other_memory = estimate_memory(c, spec, ranks, e.steps, !e.recompute);
  return e;
}

std::string format_estimate(const RunEstimate& e, const RunConfig& c, int ranks) {
  return fmt::format(
      "\n# {} on {} rank(s)\n"
      "# parameters            {}\n"
      "# samples               {} in split {}\n"
      "# images to be seen     {} ({:.4g} epochs)\n"
      "# steps                 {} of {} images in {} micro-batches\n"
      "# training FLOPs        {:.4g} an image, {:.4g} in all\n"
      "# {}\n"
      "# with train.recompute = \"{}\": {:.0f} MiB\n",
      c.model.name, ranks, e.parameters, e.samples, c.data.split, e.positions, c.schedule.epochs,
      e.steps, c.batch.size, c.batch.micro_batches, e.train_flops_per_image, e.train_flops,
      to_text(e.memory), e.recompute ? "none" : "blocks", e.other_memory.total() / 1048576.0);
}

Json to_json(const RunEstimate& e) {
  return {{"parameters", e.parameters},
          {"samples", e.samples},
          {"images", e.positions},
          {"steps", e.steps},
          {"train_flops_per_image", e.train_flops_per_image},
          {"train_flops", e.train_flops},
          {"memory_bytes", e.memory.total()}};
}

}  // namespace nf::train

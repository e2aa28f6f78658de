// See memory.h.
#include "trainer/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "core/process_memory.h"
#include "models/nfnet/cost.h"
#include "trainer/comm/sum_tree.h"

namespace nf::train {
namespace {

// LibTorch, oneDNN's and MKL's code and tables, Open MPI: measured on tiny nets (docs/numbers.md).
constexpr double kProgramBytes = 205.0 * 1048576;

bool saves_while_training(const RunConfig& c, uint64_t steps) {
  const auto within = [&](int64_t every) {
    return every > 0 && static_cast<uint64_t>(every) < steps;
  };
  return within(c.checkpoint.every_steps) || c.checkpoint.every_minutes > 0 ||
         (!c.evaluate.split.empty() && within(c.evaluate.every_steps) &&
          c.checkpoint.keep_best != "none");
}

}  // namespace

MemoryEstimate estimate_memory(const RunConfig& c, const model::NfnetSpec& spec, int ranks,
                               uint64_t steps, bool recompute) {
  const auto v = static_cast<uint64_t>(c.batch.micro_batches);
  const int64_t micro_batch = c.batch.size / c.batch.micro_batches;
  const double copy = 4.0 * static_cast<double>(model::model_cost(spec).parameters);
  const uint64_t of_rank = v / static_cast<uint64_t>(ranks);
  const double sums = c.comm.reduction == "fixed64"
                          ? 2.0 + static_cast<double>(v) / ranks
                          : static_cast<double>(make_fold_plan(0, of_rank, v).buffers);
  const bool ema = c.ema.decay > 0;
  int64_t size = c.data.image_size;
  for (const int64_t s : c.schedule.image_sizes) size = std::max(size, s);

  MemoryEstimate e;
  e.program = kProgramBytes;
  // Ranks of one host may share the first three (shared_state.h) and then hold less.
  e.parameters = copy * (2 + (ema ? 1 : 0) + (c.sam.rho > 0 ? 2 : 0) + sums);
  const int element = c.precision.compute == "bfloat16" ? 2 : 4;
  e.parameters += model::working_weights_bytes(spec, element);
  const double training = model::training_peak_bytes(spec, size, micro_batch, element, recompute);
  double evaluation = 0;
  if (!c.evaluate.split.empty()) {
    const int64_t eval_size =
        c.evaluate.image_size > 0 ? c.evaluate.image_size : final_image_size(c);
    evaluation = model::evaluation_peak_bytes(spec, eval_size, c.evaluate.chunk);
  }
  e.activations = std::max(training, evaluation);
  e.images = static_cast<double>(micro_batch * size * size * 3 * (c.data.prefetch + 1));
  if (c.checkpoint.background && saves_while_training(c, steps))
    e.checkpoint = copy * (ema ? 3 : 2);
  return e;
}

bool choose_recompute(const RunConfig& c, const model::NfnetSpec& spec, int ranks,
                      int ranks_of_host, bool on_cpu) {
  if (c.train.recompute != "auto") return c.train.recompute == "blocks";
  double available = c.train.memory_gib * 1073741824.0;
  if (available == 0 && on_cpu) available = available_bytes() / ranks_of_host;
  MemoryEstimate e = estimate_memory(c, spec, ranks, UINT64_MAX, false);
  const double needed = on_cpu ? e.total() : e.parameters + e.activations;
  return needed > 0.8 * available;
}

std::string to_text(const MemoryEstimate& e) {
  constexpr double kMiB = 1048576.0;
  return fmt::format(
      "memory of a rank: about {:.0f} MiB (weights and buffers {:.0f}, activations {:.0f}, images "
      "{:.0f}, copy for checkpoints {:.0f}, program {:.0f})",
      e.total() / kMiB, e.parameters / kMiB, e.activations / kMiB, e.images / kMiB,
      e.checkpoint / kMiB, e.program / kMiB);
}

}  // namespace nf::train

// See fake_world.h.
#include "trainer/fake_world.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <filesystem>

#include "core/error.h"
#include "core/process_memory.h"
#include "core/temporary_folder.h"
#include "data_pipeline/ledger.h"
#include "trainer/comm/fake.h"
#include "trainer/dry_run.h"
#include "trainer/loop.h"
#include "trainer/memory.h"
#include "trainer/step.h"

namespace nf::train {
namespace {

// Together the ranks' micro-batches are the step's positions, each once, and their digests add up
// to that of the whole.
void check_step(const Trainer& t, int ranks, uint64_t step) {
  data::TrainPlan plan = t.plan;
  plan.world = static_cast<uint64_t>(ranks);
  const uint64_t begin = step * plan.batch_size,
                 end = std::min(begin + plan.batch_size, plan.end_position);
  uint64_t next = begin, digest = 0;
  std::vector<uint64_t> ids;
  for (plan.rank = 0; plan.rank < plan.world; ++plan.rank)
    for (uint64_t m = plan.first(); m < plan.last(); ++m) {
      const auto range = plan.range(step, m);
      if (!range || range->begin == range->end) continue;
      if (range->begin != next)
        throw Error(ExitCode::kOther, "rank " + std::to_string(plan.rank),
                    "its positions do not follow those of the ranks before it");
      ids.resize(range->end - range->begin);
      t.sampler.fill(range->begin, ids);
      digest += static_cast<uint64_t>(data::batch_digest(range->begin, ids));
      next = range->end;
    }
  ids.resize(end - begin);
  t.sampler.fill(begin, ids);
  if (next != end || digest != static_cast<uint64_t>(data::batch_digest(begin, ids)))
    throw Error(ExitCode::kOther, "step " + std::to_string(step),
                "the ranks' micro-batches are not the batch");
}

}  // namespace

double exchange_seconds(const Rehearsal& r, const AssumedMachine& m) {
  const double stages = std::log2(std::max(2, r.ranks));
  return 1e-6 * (r.collectives * stages * m.latency_us + r.messages * m.message_us) +
         8 * r.bytes / (1e9 * m.gbps);
}

Rehearsal rehearse(const RunConfig& config, int ranks, const AssumedMachine& machine) {
  Rehearsal r;
  r.ranks = ranks;
  RunConfig c = config;
  if (c.limit.steps == 0) c.limit.steps = 3;
  const RunEstimate whole = estimate_run(config, ranks);
  r.estimated_memory_bytes = whole.memory.total();
  at::set_num_threads(static_cast<int>(c.run.threads_per_rank));

  const TemporaryFolder folder("nf-rehearsal");
  FakeCommunicator comm(0, ranks);
  Trainer trainer(c, comm);
  for (const uint64_t step : {uint64_t{0}, trainer.total_steps() / 2, trainer.total_steps() - 1}) {
    check_step(trainer, ranks, step);
    ++r.plan_steps_checked;
  }
  LoopOptions options;
  options.output = folder.path();
  options.quiet = true;
  options.command = "rehearsal";
  StopWatch watch(0, 0);
  run_training(trainer, options, watch);

  const uint64_t more = std::min<uint64_t>(2, trainer.total_steps() - trainer.step);
  comm.take_traffic();
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t i = 0; i < more; ++i) train_step(trainer, {});
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  const Traffic traffic = comm.take_traffic();
  r.peak_memory_bytes = peak_resident_bytes();
  const double steps = static_cast<double>(std::max<uint64_t>(1, more));
  r.own_step_seconds = took.count() / steps;
  r.messages = static_cast<double>(traffic.messages) / steps;
  r.bytes = static_cast<double>(traffic.bytes) / steps;
  r.collectives = static_cast<double>(traffic.collectives) / steps;

  const double own_micro_batches = static_cast<double>(trainer.plan.per_step());
  r.compute_seconds = whole.train_flops_per_image * static_cast<double>(c.batch.size) / ranks /
                      (1e12 * machine.tflops * machine.mfu);
  r.exchange_seconds = exchange_seconds(r, machine);
  // Hidden behind the last micro-batch's backward pass: two thirds of its time.
  r.exposed_seconds =
      std::max(0.0, r.exchange_seconds - 2.0 / 3.0 * r.compute_seconds / own_micro_batches);
  r.efficiency = r.compute_seconds / (r.compute_seconds + r.exposed_seconds);
  r.run_hours = static_cast<double>(whole.steps) * (r.compute_seconds + r.exposed_seconds) / 3600;
  return r;
}

std::string format_rehearsal(const Rehearsal& r) {
  constexpr double kMiB = 1048576.0;
  return fmt::format(
      "\n# rehearsal of rank 0 of {}\n"
      "# positions             checked over all ranks in {} steps\n"
      "# memory                {:.0f} MiB at most (estimate {:.0f} MiB and what the libraries "
      "take)\n"
      "# own part of a step    {:.3f} s on this machine\n"
      "# sends in a step       {:.0f} messages, {:.1f} MiB\n"
      "# assumed machine       compute {:.3g} s, exchange {:.3g} s, of which {:.3g} s not hidden\n"
      "# efficiency            {:.1f} %\n"
      "# whole run             {:.3g} h\n",
      r.ranks, r.plan_steps_checked, r.peak_memory_bytes / kMiB, r.estimated_memory_bytes / kMiB,
      r.own_step_seconds, r.messages, r.bytes / kMiB, r.compute_seconds, r.exchange_seconds,
      r.exposed_seconds, 100 * r.efficiency, r.run_hours);
}

Json to_json(const Rehearsal& r) {
  return {{"ranks", r.ranks},
          {"own_step_seconds", r.own_step_seconds},
          {"peak_memory_bytes", r.peak_memory_bytes},
          {"estimated_memory_bytes", r.estimated_memory_bytes},
          {"messages_a_step", r.messages},
          {"bytes_a_step", r.bytes},
          {"collectives_a_step", r.collectives},
          {"compute_seconds", r.compute_seconds},
          {"exchange_seconds", r.exchange_seconds},
          {"exposed_seconds", r.exposed_seconds},
          {"efficiency", r.efficiency},
          {"run_hours", r.run_hours}};
}

}  // namespace nf::train

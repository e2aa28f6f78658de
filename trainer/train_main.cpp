// nf-train: one worker of a training run, started by mpirun, by srun or alone (contract,
// "Programs").
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <cstdlib>

#include "core/command_line.h"
#include "trainer/agreement.h"
#include "trainer/device/cpu_pool.h"
#include "trainer/dry_run.h"
#include "trainer/fake_world.h"
#include "trainer/loop.h"
#include "trainer/program.h"

namespace {
using namespace nf;

constexpr const char* kExample =
    "example:\n"
    "  mpirun -np 2 --bind-to none nf-train --config configs/cifar10.toml --set data.path=cifar10 "
    "--output runs/first\n"
    "Killed or preempted (exit code 75), the same command continues, on any number of ranks, with "
    "the same bits.";

// Reads the command line and the config; the exit code where the program only informs.
std::optional<int> prepare(int argc, char** argv, const train::Communicator& comm,
                           train::RunConfig& config, train::LoopOptions& options) {
  CLI::App app("Trains a network. Pretraining and fine-tuning differ by config only.", "nf-train");
  app.footer(kExample);
  std::string file;
  std::vector<std::string> overrides;
  bool dry_run = false, help_config = false;
  int fake_world = 0;
  train::AssumedMachine machine;
  app.add_option("--config", file, "TOML file of the run");
  app.add_option("--set", overrides, "key=value, overrides the file; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--output", options.output, "run directory");
  app.add_option("--resume", options.resume,
                 "auto: continue what is there; never; or a checkpoint folder")
      ->capture_default_str();
  app.add_flag("--dry-run", dry_run,
               "print the resolved config, parameters, FLOPs, memory and steps, and stop");
  app.add_option(
         "--fake-world", fake_world,
         "rehearse a job of so many ranks in this one process: its control path, memory and "
         "messages, and its time on the machine of the --assume options")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--assume-tflops", machine.tflops, "peak of a rank's device")
      ->capture_default_str();
  app.add_option("--assume-mfu", machine.mfu, "share of it that is reached")->capture_default_str();
  app.add_option("--assume-gbps", machine.gbps, "Gbit/s out of a rank")->capture_default_str();
  app.add_option("--assume-latency-us", machine.latency_us, "of a message")->capture_default_str();
  app.add_flag("--help-config", help_config, "list every config key, its default and meaning");
  const bool root = comm.rank() == 0;
  if (const auto code = parse_command_line(app, argc, argv, !root)) return code;
  if (help_config) {
    if (root) fmt::print("{}", describe(config.fields()));
    return 0;
  }
  if (file.empty())
    throw Error(ExitCode::kUsage, "nf-train", "--config is required", "see nf-train --help");
  if (options.output.empty() && !dry_run && fake_world == 0)
    throw Error(ExitCode::kUsage, "nf-train", "--output is required", "see nf-train --help");
  config = train::load_run_config(file, overrides);
  for (int i = 0; i < argc; ++i) options.command += (i > 0 ? " " : "") + std::string(argv[i]);
  if (fake_world > 0) {
    if (comm.size() > 1)
      throw Error(ExitCode::kUsage, "--fake-world", "is for one process, not for mpirun");
    fmt::print("{}",
               train::format_estimate(train::estimate_run(config, fake_world), config, fake_world));
    const auto r = train::rehearse(config, fake_world, machine);
    fmt::print("{}{}\n", train::format_rehearsal(r), train::to_json(r).dump());
    return 0;
  }
  if (!dry_run) return std::nullopt;
  const auto estimate = train::estimate_run(config, comm.size());
  if (root)
    fmt::print("{}{}", to_toml(config.fields()),
               train::format_estimate(estimate, config, comm.size()));
  return 0;
}

int run(train::Ranks& ranks, int argc, char** argv) {
  train::RunConfig config;
  train::LoopOptions options;
  std::optional<int> code;
  train::together(ranks.comm, [&] { code = prepare(argc, argv, ranks.comm, config, options); });
  if (code) return *code;
  const char* job_end = std::getenv("SLURM_JOB_END_TIME");
  train::StopWatch watch(config.limit.wall_minutes, job_end ? std::atof(job_end) : 0);
  ranks.set_timeout(config.comm.timeout_seconds);
  if (config.comm.heartbeat_seconds <= 0) ranks.watchdog.reset();
  // Others' watchdogs speak first: they know more.
  if (ranks.sentinel) ranks.sentinel->set_patience(1.5 * config.comm.heartbeat_seconds);
  if (ranks.watchdog) {
    ranks.watchdog->set_limits(config.comm.heartbeat_seconds, config.comm.timeout_seconds);
    ranks.watchdog->set_report_path(options.output / "hang-report.json");
  }
  options.activity = &ranks.activity;
  options.watchdog = ranks.watchdog.get();
  at::set_num_threads(static_cast<int>(config.run.threads_per_rank));
  train::use_cpu_pool();
  std::unique_ptr<train::Trainer> trainer;
  train::together(ranks.comm,
                  [&] { trainer = std::make_unique<train::Trainer>(config, ranks.comm); });
  return static_cast<int>(train::run_training(*trainer, options, watch));
}

}  // namespace

int main(int argc, char** argv) {
  return train::run_ranks("nf-train", argc, argv,
                          [&](train::Ranks& ranks) { return run(ranks, argc, argv); });
}

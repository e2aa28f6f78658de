// nf-sweep run, status and collect.
#include <fmt/format.h>
#include <signal.h>

#include <atomic>
#include <cstdio>
#include <map>
#include <memory>

#include "core/atomic_file.h"
#include "core/error.h"
#include "launch/programs.h"
#include "launch/sweep_commands.h"
#include "launch/sweep_runner.h"

namespace nf::launch {
namespace {

namespace fs = std::filesystem;
using analysis::RunStatus;

std::atomic<bool> stop_asked{false};
void ask_to_stop(int) { stop_asked = true; }

struct RunArguments {
  SweepArguments sweep;
  std::string programs;
};

int run(const RunArguments& a) {
  SweepConfig config = load_sweep_config(a.sweep.config, a.sweep.overrides);
  const fs::path output = a.sweep.output;
  claim_sweep(config, output);
  RunnerOptions options;
  options.place = {output, programs_folder(a.programs)};
  struct sigaction action = {};
  action.sa_handler = ask_to_stop;
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
  options.stopping = [] { return stop_asked.load(); };
  options.say = [](const std::string& line) {
    fmt::print(stderr, "{}\n", line);
    std::fflush(stderr);
  };
  const SweepPlan plan = plan_of(config, output);
  const ExitCode code = run_sweep(config, plan, options);
  if (code == ExitCode::kPreempted) options.say("stopped; run the same command again");
  return static_cast<int>(code);
}

int status(const SweepArguments& a) {
  const SweepConfig config = load_sweep_config(a.config, a.overrides);
  const SweepPlan plan = plan_of(config, a.output);
  const TrialStore store(a.output);
  const TuningRules rules = config.rules();
  const auto verdicts = judge_sweep(plan.tuning(), read_trials(store, plan, config), rules);
  std::vector<std::map<RunStatus, int>> counts(plan.cells.size());
  double hours = 0, left = 0;
  for (const auto& trial : all_trials(plan, config)) {
    const TrialState state = store.read(trial.name);
    if (!state.known) continue;
    ++counts[trial.cell][state.status];
    for (const Json* json : {&state.result, &state.verdict})
      if (json->is_object() && json->contains("device_hours")) {
        hours += (*json)["device_hours"].get<double>();
        break;
      }
  }
  fmt::print("{:<16} {:>7} {:>5} {:>8} {:>7} {:>7} {:>9} {:>10}  {}\n", "model", "epochs", "done",
             "diverged", "failed", "running", "preempted", "best lr", "state");
  for (size_t i = 0; i < plan.cells.size(); ++i) {
    const CellVerdict& v = verdicts[i];
    auto& c = counts[i];
    const char* state = v.failed     ? "failed"
                        : v.waiting  ? "waits for smaller cells"
                        : v.finished ? (v.not_bracketed ? "finished, not_bracketed" : "finished")
                                     : "open";
    fmt::print("{:<16} {:>7} {:>5} {:>8} {:>7} {:>7} {:>9} {:>10}  {}\n", plan.cells[i].model,
               plan.cells[i].epochs, c[RunStatus::kDone], c[RunStatus::kDiverged],
               c[RunStatus::kFailed], c[RunStatus::kRunning], c[RunStatus::kPreempted],
               v.best ? fmt::format("{:.5g}", rules.grid.rate(*v.best)) : "-", state);
    const int ended = c[RunStatus::kDone] + c[RunStatus::kDiverged];
    const int open = static_cast<int>(v.next.size() * config.seeds.size());
    if (!v.finished)
      left += plan.cells[i].device_hours * std::max(open, plan.runs_per_cell - ended);
  }
  const double cost = analysis::cost_usd(hours, config.planned_device(), config.price());
  const double wide = static_cast<double>(config.run.ranks * config.run.parallel);
  fmt::print("spent: {:.4f} {} device-hours, {}; left: {}\n", hours, config.device.name,
             config.price().usd_per_hour > 0 ? fmt::format("{:.2f} USD", cost) : "no price known",
             left > 0 ? fmt::format("about {:.2f} h", left / wide) : "unknown or nothing");
  return 0;
}

int collect(const SweepArguments& a) {
  const SweepConfig config = load_sweep_config(a.config, a.overrides);
  const TrialStore store(a.output);
  fmt::print("{}\n", write_results(store, plan_of(config, a.output), config).string());
  return 0;
}

}  // namespace

SweepPlan plan_of(const SweepConfig& config, const fs::path& output) {
  const fs::path table = output / "results.csv";
  std::vector<analysis::Run> runs;
  if (fs::exists(table)) {
    const std::string text = read_file(table);
    if (text.find('\n') + 1 < text.size())
      runs = analysis::read_run_table_text(text, table.string()).runs;
  }
  return plan_sweep(config, runs);
}

Subcommand add_run_command(CLI::App& program) {
  auto a = std::make_shared<RunArguments>();
  CLI::App* app = program.add_subcommand("run", "train on this host; continues where it stopped");
  app->footer(
      "example:\n  nf-sweep run --config configs/sweeps/smoke.toml --set data.path=demo/dataset "
      "--output sweeps/smoke");
  add_sweep_options(*app, a->sweep, true);
  app->add_option("--programs", a->programs,
                  "folder of nf-train and nf-audit; default: this one's");
  return {app, [a] { return run(*a); }};
}

Subcommand add_status_command(CLI::App& program) {
  auto a = std::make_shared<SweepArguments>();
  CLI::App* app = program.add_subcommand("status", "cells, costs and time left");
  app->footer("example:\n  nf-sweep status --config SWEEP.toml --output sweeps/first");
  add_sweep_options(*app, *a, true);
  return {app, [a] { return status(*a); }};
}

Subcommand add_collect_command(CLI::App& program) {
  auto a = std::make_shared<SweepArguments>();
  CLI::App* app = program.add_subcommand("collect", "write results.csv");
  app->footer("example:\n  nf-sweep collect --config SWEEP.toml --output sweeps/first");
  add_sweep_options(*app, *a, true);
  return {app, [a] { return collect(*a); }};
}

}  // namespace nf::launch

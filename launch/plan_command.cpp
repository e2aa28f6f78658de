// nf-sweep plan: the cells of a sweep, its runs, FLOPs, device-hours and dollars.
#include <fmt/format.h>

#include <memory>

#include "core/error.h"
#include "launch/sweep_commands.h"
#include "launch/sweep_plan.h"

namespace nf::launch {
namespace {

struct PlanOptions {
  SweepArguments sweep;
  bool json = false, help_config = false;
};

int run(const PlanOptions& o) {
  if (o.help_config) {
    SweepConfig config;
    fmt::print("{}", describe(config.fields()));
    return 0;
  }
  const SweepConfig config = load_sweep_config(o.sweep.config, o.sweep.overrides);
  std::vector<analysis::Run> measured;
  const std::filesystem::path table = std::filesystem::path(o.sweep.output) / "results.csv";
  if (!o.sweep.output.empty() && std::filesystem::exists(table))
    measured = analysis::read_run_table(table).runs;
  const SweepPlan plan = plan_sweep(config, measured);
  if (o.json)
    fmt::print("{}\n", to_json(plan, config).dump(2));
  else
    fmt::print("{}", plan_text(plan, config));
  return 0;
}

}  // namespace

void add_sweep_options(CLI::App& app, SweepArguments& arguments, bool output_required) {
  app.add_option("--config", arguments.config, "SWEEP.toml");
  app.add_option("--set", arguments.overrides, "key=value, overrides the file; may be repeated")
      ->allow_extra_args(false);
  auto* output = app.add_option("--output", arguments.output, "the sweep's folder");
  if (!output_required) return;
  output->required();
  app.get_option("--config")->required();
}

Subcommand add_plan_command(CLI::App& program) {
  auto o = std::make_shared<PlanOptions>();
  CLI::App* app = program.add_subcommand("plan", "runs, FLOPs, device-hours and dollars");
  app->footer("example:\n  nf-sweep plan --config configs/sweeps/paper.toml");
  add_sweep_options(*app, o->sweep, false);
  auto* help = app->add_flag("--help-config", o->help_config, "list every key of SWEEP.toml");
  app->get_option("--config")->excludes(help);
  app->add_flag("--json", o->json, "print JSON");
  return {app, [o] {
            if (o->sweep.config.empty() && !o->help_config)
              throw Error(ExitCode::kUsage, "nf-sweep plan", "--config is required",
                          "see nf-sweep plan --help");
            return run(*o);
          }};
}

}  // namespace nf::launch

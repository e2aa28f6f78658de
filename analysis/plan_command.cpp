// nf-fit plan: what to run with a budget, or what a loss costs.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

#include "analysis/csv.h"
#include "analysis/fit_commands.h"
#include "analysis/fit_json.h"
#include "core/error.h"

namespace nf::analysis {
namespace {

struct PlanOptions {
  std::string fit, device, output;
  double peak_tflops = 0;  // 0: of a known device
  std::vector<std::string> models;
  std::optional<double> device_hours, target_loss, usd_per_device_hour, images_per_epoch;
  PlanLimits limits;
  bool json = false;
};

std::string number(double v) { return fmt::format("{:.5g}", v); }

std::string run_text(const PlannedRun& run) {
  return fmt::format(
      "{}, {} epochs, learning rate {} (on the grid {}), loss {:.5f} [{:.5f}, {:.5f}]", run.model,
      number(run.epochs), number(run.learning_rate), number(run.learning_rate_grid), run.loss,
      run.ci95.lo, run.ci95.hi);
}

void print_text(const Plan& plan) {
  fmt::print("budget          {} device-hours{}\n", number(plan.device_hours),
             plan.cost_usd ? fmt::format(", {:.2f} USD", *plan.cost_usd) : "");
  fmt::print("best            {}\n", run_text(plan.best));
  if (plan.runner_up)
    fmt::print("runner-up       {}; {:+.5f}, better with probability {:.3f}\n",
               run_text(*plan.runner_up), plan.runner_up->loss - plan.best.loss,
               plan.runner_up_better);
  fmt::print("continuous      {} FLOPs an image, {} epochs, loss {:.5f} [{:.5f}, {:.5f}]\n",
             number(plan.continuous_size), number(plan.continuous_epochs), plan.continuous_loss,
             plan.continuous_ci95.lo, plan.continuous_ci95.hi);
  if (plan.half) fmt::print("half            {}\n", run_text(*plan.half));
  if (plan.twice) fmt::print("double          {}\n", run_text(*plan.twice));
  if (plan.for_transfer)
    fmt::print("to fine-tune    {}: slightly larger with fewer epochs often transfers better\n",
               run_text(*plan.for_transfer));
  for (const auto& text : plan.warnings) fmt::print("warning         {}\n", text);
}

int answer_unreachable(const PlanOptions& o, const PlanBasis& basis) {
  const bool below = *o.target_loss <= basis.law.E;
  const std::string reason =
      below ? fmt::format("not reachable: below the irreducible loss E = {:.6g}", basis.law.E)
            : "not reachable with these models" +
                  std::string(o.limits.max_epochs ? " and epochs" : "");
  if (o.json || !o.output.empty())
    write_json({{"target_loss", *o.target_loss}, {"reachable", false}, {"reason", reason}},
               o.output);
  else
    fmt::print("{}\n", reason);
  return 0;
}

int run(const PlanOptions& o) {
  if (o.device_hours.has_value() == o.target_loss.has_value())
    throw Error(ExitCode::kUsage, "nf-fit plan", "give either --device-hours or --target-loss",
                "see nf-fit plan --help");
  if (o.peak_tflops > 0 && o.device.empty())
    throw Error(ExitCode::kUsage, "--peak-tflops", "is the peak of which device?",
                "name it with --device");
  PlanBasis basis = load_plan_basis(o.fit, o.device, o.peak_tflops);
  if (o.usd_per_device_hour) basis.usd_per_device_hour = *o.usd_per_device_hour;
  if (o.images_per_epoch) basis.images_per_epoch = *o.images_per_epoch;
  choose_models(basis, o.models);
  double hours = o.device_hours.value_or(0);
  if (o.target_loss) {
    const auto least = hours_for_loss(basis, *o.target_loss, o.limits);
    if (!least) return answer_unreachable(o, basis);
    hours = *least;
  }
  const Plan plan = make_plan(basis, hours, o.limits);
  Json json = to_json(plan);
  if (o.target_loss) {
    json["target_loss"] = *o.target_loss;
    json["reachable"] = true;
  }
  if (o.json || !o.output.empty())
    write_json(json, o.output);
  else
    print_text(plan);
  return 0;
}

}  // namespace

Subcommand add_plan_command(CLI::App& program) {
  auto o = std::make_shared<PlanOptions>();
  CLI::App* app = program.add_subcommand("plan", "Model, epochs and learning rate for a budget");
  app->footer(
      "examples:\n  nf-fit plan --fit report/fit.json --device-hours 5000\n"
      "  nf-fit plan --fit report/fit.json --target-loss 2.2 --max-epochs 8 --json");
  app->add_option("--fit", o->fit, "fit.json of a report")->required()->check(CLI::ExistingFile);
  app->add_option("--device-hours", o->device_hours, "the budget");
  app->add_option("--target-loss", o->target_loss, "instead: the least budget for this loss");
  app->add_option("--device", o->device, "device to run on; default: the table's");
  app->add_option("--peak-tflops", o->peak_tflops,
                  "dense bfloat16 peak of --device, where that is neither known nor in the table")
      ->check(CLI::PositiveNumber);
  app->add_option("--models", o->models, "choose among these; NAME=FLOPS adds one")->delimiter(',');
  app->add_option("--max-epochs", o->limits.max_epochs, "most passes over the data")
      ->check(CLI::PositiveNumber);
  app->add_option("--images-per-epoch", o->images_per_epoch,
                  "images of the data set; default: the table's")
      ->check(CLI::PositiveNumber);
  app->add_option("--usd-per-device-hour", o->usd_per_device_hour, "price; default: the table's")
      ->check(CLI::NonNegativeNumber);
  app->add_flag("--far", o->limits.far, "also beyond 100 times the largest run");
  app->add_flag("--json", o->json, "JSON instead of text");
  app->add_option("--output", o->output, "JSON file; default: stdout");
  return {app, [o] { return run(*o); }};
}

}  // namespace nf::analysis

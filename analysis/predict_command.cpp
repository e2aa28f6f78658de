// nf-fit predict: the loss of one run that has not been made, with the interval it should fall in.
#include <fmt/format.h>

#include <memory>

#include "analysis/fit_commands.h"
#include "analysis/fit_json.h"
#include "core/error.h"

namespace nf::analysis {
namespace {

struct PredictOptions {
  std::string fit, model, device, output;
  double epochs = 0;
  bool far = false, json = false;
};

void print_text(const Prediction& p) {
  const PlannedRun& run = p.run;
  fmt::print(
      "run             {}, {:.5g} epochs, {:.5g} images, {:.5g} FLOPs, {:.4g} device-hours\n",
      run.model, run.epochs, run.images, run.train_flops, run.device_hours);
  fmt::print("learning rate   {:.5g} (on the grid {:.5g})\n", run.learning_rate,
             run.learning_rate_grid);
  fmt::print(
      "loss            {:.5f} [{:.5f}, {:.5f}] (90 % of runs; the law's own 95 %: {:.5f} to "
      "{:.5f})\n",
      run.loss, p.interval90.lo, p.interval90.hi, run.ci95.lo, run.ci95.hi);
  for (const auto& text : p.warnings) fmt::print("warning         {}\n", text);
}

int run(const PredictOptions& o) {
  const PlanBasis basis = load_plan_basis(o.fit, o.device);
  const Prediction p = predict_run(basis, o.model, o.epochs, o.far);
  if (o.json || !o.output.empty())
    write_json(to_json(p), o.output);
  else
    print_text(p);
  return 0;
}

}  // namespace

Subcommand add_predict_command(CLI::App& program) {
  auto o = std::make_shared<PredictOptions>();
  CLI::App* app = program.add_subcommand("predict", "The loss of one run before it is made");
  app->footer("example:\n  nf-fit predict --fit report/fit.json --model nfnet_f3 --epochs 2");
  app->add_option("--fit", o->fit, "fit.json of a report")->required()->check(CLI::ExistingFile);
  app->add_option("--model", o->model, "of the table; NAME=TRAIN_FLOPS_PER_IMAGE for another")
      ->required();
  app->add_option("--epochs", o->epochs, "passes over the data")->required();
  app->add_option("--device", o->device, "device to run on; default: the table's");
  app->add_flag("--far", o->far, "also beyond 100 times the largest run");
  app->add_flag("--json", o->json, "JSON instead of text");
  app->add_option("--output", o->output, "JSON file; default: stdout");
  return {app, [o] { return run(*o); }};
}

}  // namespace nf::analysis

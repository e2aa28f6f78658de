// nf-sweep replay: how much tuning a finished table would have needed.
#include <fmt/format.h>

#include <memory>

#include "core/atomic_file.h"
#include "launch/replay.h"
#include "launch/sweep_commands.h"

namespace nf::launch {
namespace {

struct ReplayOptions {
  std::string input, policy = "two_trial", output;
  ReplayColumns columns;
  std::optional<double> anchor;
  double factor = 2;
};

int run(const ReplayOptions& o) {
  const auto table = read_replay_table(o.input, o.columns, o.anchor, o.factor);
  Json report = {{"policy", o.policy}};
  report.update(replay_report(table, parse_policy(o.policy)));
  const std::string text = report.dump(2) + "\n";
  if (o.output.empty())
    fmt::print("{}", text);
  else
    write_file_atomic(o.output, text);
  return 0;
}

}  // namespace

Subcommand add_replay_command(CLI::App& program) {
  auto o = std::make_shared<ReplayOptions>();
  CLI::App* app = program.add_subcommand("replay", "ask a finished table instead of training");
  app->footer(
      "example:\n  nf-sweep replay --input results.csv --size train_flops_per_image --images "
      "images_seen\n    --rate learning_rate --loss heldout_loss --policy bracket");
  app->add_option("--input", o->input, "CSV")->required()->check(CLI::ExistingFile);
  app->add_option("--size", o->columns.size, "column of the model's size")->required();
  app->add_option("--images", o->columns.images, "column of the images seen")->required();
  app->add_option("--rate", o->columns.rate, "column of the learning rate")->required();
  app->add_option("--loss", o->columns.loss, "column of the loss; empty or nan: diverged")
      ->required();
  app->add_option("--group", o->columns.group, "columns; each of their values is tuned by itself")
      ->delimiter(',');
  app->add_option("--policy", o->policy, "two_trial, bracket or full")
      ->check(CLI::IsMember({"two_trial", "bracket", "full"}))
      ->capture_default_str();
  app->add_option("--anchor", o->anchor,
                  "a rate of the grid; default: 1.6 where it fits, else the table's middle rate")
      ->check(CLI::PositiveNumber);
  app->add_option("--factor", o->factor, "between neighbouring rates")
      ->check(CLI::Range(1.01, 1e6))
      ->capture_default_str();
  app->add_option("--output", o->output, "JSON file; default: stdout");
  return {app, [o] { return run(*o); }};
}

}  // namespace nf::launch

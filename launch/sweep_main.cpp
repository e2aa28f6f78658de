// nf-sweep: grids of models x epoch budgets x learning rates (contract, "Programs").
#include "core/command_line.h"
#include "core/program.h"
#include "launch/sweep_commands.h"

namespace {

int start(int argc, char** argv) {
  using namespace nf::launch;
  CLI::App app{"Sweeps over models, epoch budgets and learning rates.", "nf-sweep"};
  app.footer(
      "examples:\n"
      "  nf-sweep plan --config configs/sweeps/paper.toml\n"
      "  nf-sweep run --config configs/sweeps/smoke.toml --set data.path=demo/dataset --output "
      "sweeps/smoke\n"
      "  nf-sweep replay --input results.csv --size train_flops_per_image --images images_seen "
      "--rate learning_rate --loss heldout_loss");
  app.require_subcommand(1);
  const std::vector<nf::Subcommand> commands = {add_plan_command(app),    add_run_command(app),
                                                add_submit_command(app),  add_status_command(app),
                                                add_collect_command(app), add_replay_command(app)};
  if (const auto code = nf::parse_command_line(app, argc, argv)) return *code;
  return nf::run_chosen(commands).value_or(0);
}

}  // namespace

int main(int argc, char** argv) {
  return nf::run_program("nf-sweep", [&] { return start(argc, argv); });
}

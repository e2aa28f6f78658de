// nf-launch: training jobs that come back after preemption and faults (contract, "Programs").
#include "core/command_line.h"
#include "core/program.h"
#include "launch/launch_commands.h"

namespace {

int start(int argc, char** argv) {
  using namespace nf::launch;
  CLI::App app{"Starts training jobs that come back after preemption and faults.", "nf-launch"};
  app.footer(
      "examples:\n"
      "  nf-launch sbatch --config configs/cifar10.toml --set data.path=/data/cifar10 --output "
      "runs/first --ranks 2\n"
      "  nf-launch local --config configs/cifar10.toml --set data.path=cifar10 --output "
      "runs/first --ranks 2");
  app.require_subcommand(1);
  const std::vector<nf::Subcommand> commands = {add_sbatch_command(app), add_local_command(app)};
  if (const auto code = nf::parse_command_line(app, argc, argv)) return *code;
  return nf::run_chosen(commands).value_or(0);
}

}  // namespace

int main(int argc, char** argv) {
  return nf::run_program("nf-launch", [&] { return start(argc, argv); });
}

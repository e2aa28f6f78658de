// The commands of nf-sweep. add_* declares a command's options; run is called after the command
// line was read.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

namespace nf::launch {

struct SweepCommand {
  CLI::App* app;
  std::function<int()> run;
};

SweepCommand add_plan_command(CLI::App& program);
SweepCommand add_run_command(CLI::App& program);
SweepCommand add_status_command(CLI::App& program);
SweepCommand add_collect_command(CLI::App& program);
SweepCommand add_replay_command(CLI::App& program);

// What plan, run, status and collect have in common.
struct SweepArguments {
  std::string config, output;
  std::vector<std::string> overrides;
};
void add_sweep_options(CLI::App& app, SweepArguments& arguments, bool output_required);

}  // namespace nf::launch

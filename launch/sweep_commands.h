// The commands of nf-sweep. add_* declares a command's options; run is called after the command
// line was read.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/command_line.h"
#include "launch/sweep_plan.h"

namespace nf::launch {

Subcommand add_plan_command(CLI::App& program);
Subcommand add_run_command(CLI::App& program);
Subcommand add_submit_command(CLI::App& program);
Subcommand add_status_command(CLI::App& program);
Subcommand add_collect_command(CLI::App& program);
Subcommand add_replay_command(CLI::App& program);

// What plan, run, submit, status and collect have in common.
struct SweepArguments {
  std::string config, output;
  std::vector<std::string> overrides;
};
void add_sweep_options(CLI::App& app, SweepArguments& arguments, bool output_required);
// The plan with rates of what has finished so far.
SweepPlan plan_of(const SweepConfig& config, const std::filesystem::path& output);

}  // namespace nf::launch

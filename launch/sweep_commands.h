// The commands of nf-sweep. add_* declares a command's options; run is called after the command
// line was read.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace nf::launch {

struct SweepCommand {
  CLI::App* app;
  std::function<int()> run;
};

SweepCommand add_replay_command(CLI::App& program);

}  // namespace nf::launch

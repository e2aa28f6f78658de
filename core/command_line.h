// CLI11 with the contract's manners: --version everywhere, help exits with 0, wrong usage is an
// Error(kUsage).
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/version.h"

namespace nf {

// Parses; the exit code when the program should stop now (help, version), else nullopt. `quiet`
// ranks print nothing.
inline std::optional<int> parse_command_line(CLI::App& app, int argc, const char* const* argv,
                                             bool quiet = false) {
  app.set_version_flag("--version", std::string(app.get_name()) + " " + kVersion);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    return quiet ? 0 : app.exit(e);
  } catch (const CLI::ParseError& e) {
    throw Error(ExitCode::kUsage, app.get_name(), e.what(), "see " + app.get_name() + " --help");
  }
  return std::nullopt;
}

// One command of a program: its options are declared when it is made, `run` is called after the
// command line was read.
struct Subcommand {
  CLI::App* app;
  std::function<int()> run;
};
// Runs the one that the command line chose; nothing where it chose none.
inline std::optional<int> run_chosen(const std::vector<Subcommand>& commands) {
  for (const auto& command : commands)
    if (*command.app) return command.run();
  return std::nullopt;
}

}  // namespace nf

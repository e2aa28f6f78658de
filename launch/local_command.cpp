// nf-launch local: a run on this host that is started again after faults.
#include <fmt/format.h>
#include <signal.h>

#include <atomic>
#include <cstdio>
#include <memory>

#include "core/error.h"
#include "launch/launch_commands.h"
#include "launch/local_run.h"

namespace nf::launch {
namespace {

namespace fs = std::filesystem;

std::atomic<int> stops_asked{0};
void ask_to_stop(int) { ++stops_asked; }

struct Arguments {
  LocalOptions options;
  std::string programs;
};

int run(Arguments& a) {
  LocalOptions& o = a.options;
  o.train.programs = programs_folder(a.programs);
  o.train.output = fs::absolute(o.train.output).lexically_normal();
  if (o.ranks > 1) check_mpirun_as_root();
  const ResolvedConfig resolved = check_config(o.train, o.ranks);
  o.restart_preempted = resolved.wall_minutes <= 0;
  struct sigaction action = {};
  action.sa_handler = ask_to_stop;
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2})
    ::sigaction(signal, &action, nullptr);
  o.stops = [] { return stops_asked.load(); };
  o.say = [](const std::string& line) {
    fmt::print(stderr, "nf-launch: {}\n", line);
    std::fflush(stderr);
  };
  return run_local(o);
}

}  // namespace

Subcommand add_local_command(CLI::App& program) {
  auto a = std::make_shared<Arguments>();
  LocalOptions& o = a->options;
  CLI::App* app = program.add_subcommand("local", "train on this host; restarts after faults");
  app->footer(
      "example:\n"
      "  nf-launch local --config configs/cifar10.toml --set data.path=cifar10 --output runs/first "
      "--ranks 2\n"
      "Ctrl-C, TERM and USR1 save and leave with 75; a second one leaves at once. The same command "
      "continues.");
  app->add_option("--config", o.train.config, "TOML file of the run")->required();
  app->add_option("--set", o.train.overrides, "key=value, overrides the file; may be repeated")
      ->allow_extra_args(false);
  app->add_option("--output", o.train.output, "run directory")->required();
  app->add_option("--ranks", o.ranks, "processes, through mpirun when there are several")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app->add_option("--max-restarts", o.max_restarts,
                  "restarts in a row without a newer checkpoint; others are not counted")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app->add_option("--programs", a->programs, "folder of nf-train; default: this program's");
  return {app, [a] { return run(*a); }};
}

}  // namespace nf::launch

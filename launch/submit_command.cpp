// nf-sweep submit: a sweep on Slurm.
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <sstream>

#include "core/atomic_file.h"
#include "core/error.h"
#include "launch/launch_commands.h"
#include "launch/programs.h"
#include "launch/sweep_commands.h"
#include "launch/sweep_runner.h"
#include "launch/sweep_submit.h"

namespace nf::launch {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  SweepArguments sweep;
  SubmitOptions options;
  std::string programs;
};

// This command as it was called, for the job that calls it again; without --close ROUND.
std::vector<std::string> own_words() {
  std::vector<std::string> words = {fs::read_symlink("/proc/self/exe").string()};
  std::istringstream line(read_file("/proc/self/cmdline"));
  std::string word;
  std::getline(line, word, '\0');
  while (std::getline(line, word, '\0')) {
    if (word == "--close") {
      std::getline(line, word, '\0');
      continue;
    }
    words.push_back(word);
  }
  return words;
}

int run(Arguments& a) {
  SubmitOptions& o = a.options;
  SweepConfig config = load_sweep_config(a.sweep.config, a.sweep.overrides);
  o.place.output = fs::absolute(a.sweep.output).lexically_normal();
  if (!o.place.output.has_filename()) o.place.output = o.place.output.parent_path();
  o.place.programs = programs_folder(a.programs);
  if (o.resources.ranks == 0 && o.resources.gpus_per_node == 0)
    o.resources.ranks = config.run.ranks;
  if (!o.print) {
    if (o.resources.launcher == "mpirun") check_mpirun_as_root();
    claim_sweep(config, o.place.output);
  }
  o.follow_up = own_words();
  if (const char* job = std::getenv("SLURM_JOB_ID"); job && o.closes > 0) o.own_job = job;
  o.say = [](const std::string& line) {
    fmt::print("{}\n", line);
    std::fflush(stdout);
  };
  return static_cast<int>(submit_sweep(config, plan_of(config, o.place.output), o));
}

}  // namespace

Subcommand add_submit_command(CLI::App& program) {
  auto a = std::make_shared<Arguments>();
  CLI::App* app = program.add_subcommand(
      "submit", "train on Slurm, in rounds of array jobs; continues where it stopped");
  app->footer(
      "example:\n"
      "  nf-sweep submit --config SWEEP.toml --output sweeps/first --ranks 8 --gpus-per-node 8 "
      "--time 4:00:00 --throttle 16\n"
      "Called again it submits what is missing; scancel of its jobs loses nothing.");
  add_sweep_options(*app, a->sweep, true);
  add_resource_options(*app, a->options.resources);
  app->add_option("--throttle", a->options.throttle,
                  "runs at the same time; 0: as many as the cluster takes")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app->add_option("--close", a->options.closes, "called by the job behind a round")->group("");
  app->add_flag("--print,--dry-run", a->options.print,
                "print the script of the next round and submit nothing");
  app->add_option("--programs", a->programs,
                  "folder of nf-train and nf-audit; default: this program's");
  return {app, [a] { return run(*a); }};
}

}  // namespace nf::launch

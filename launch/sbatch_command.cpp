// nf-launch sbatch: one run (or an array of them) to Slurm.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <memory>

#include "core/atomic_file.h"
#include "core/error.h"
#include "launch/launch_commands.h"
#include "launch/programs.h"
#include "launch/slurm.h"

namespace nf::launch {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  TrainCommand train;
  std::string programs, name, array;
  BatchResources resources;
  bool print = false;
};

// The first element's overrides, for the check of the config.
std::string with_task(std::string text, const std::string& number) {
  for (size_t at; (at = text.find("{task}")) != std::string::npos;) text.replace(at, 6, number);
  return text;
}

TrainCommand first_element(const TrainCommand& train, const std::string& array) {
  TrainCommand first = train;
  const std::string number = array.substr(0, array.find_first_not_of("0123456789"));
  for (auto& text : first.overrides) text = with_task(text, number);
  return first;
}

std::string job_name(const fs::path& run_dir) {
  std::string name = "nf-" + run_dir.filename().string();
  std::replace_if(
      name.begin(), name.end(),
      [](unsigned char c) { return !std::isalnum(c) && c != '-' && c != '_' && c != '.'; }, '_');
  return name;
}

// Slurm reads % as the start of a pattern.
std::string log_path(const fs::path& run_dir, const char* name) {
  std::string path = run_dir.string();
  for (size_t at = 0; (at = path.find('%', at)) != std::string::npos; at += 2) path.insert(at, "%");
  return path + "/" + name;
}

BatchJob job_of(const Arguments& a) {
  const bool array = !a.array.empty();
  TrainCommand train = a.train;
  if (array) train.output /= "task_{task}";
  BatchJob job;
  job.kind = array ? BatchKind::kTemplate : BatchKind::kSingle;
  job.array = a.array;
  job.title = fmt::format("Trains {} by {}.", a.train.output.filename().string(), a.train.config);
  job.program = "nf-launch sbatch";
  job.name = a.name.empty() ? job_name(a.train.output) : a.name;
  job.log = log_path(a.train.output, array ? "slurm-%A_%a.log" : "slurm-%j.log");
  job.folder = fs::current_path().string();
  BatchRun run;
  run.run_dir = train.output.string();
  run.words = train.words();
  run.done_file = (train.output / "result.json").string();
  job.runs.push_back(run);
  return job;
}

int run(Arguments a) {
  a.train.programs = programs_folder(a.programs);
  a.train.config = fs::absolute(a.train.config).lexically_normal().string();
  a.train.output = fs::absolute(a.train.output).lexically_normal();
  if (!a.train.output.has_filename()) a.train.output = a.train.output.parent_path();
  if (!a.print && a.resources.launcher == "mpirun") check_mpirun_as_root();
  const ResolvedConfig resolved =
      check_config(first_element(a.train, a.array), a.resources.all_ranks());
  if (a.resources.cpus_per_task == 0 && resolved.threads_per_rank > 1)
    a.resources.cpus_per_task = resolved.threads_per_rank;
  const std::string text = batch_script(job_of(a), a.resources);
  if (a.print) {
    std::fputs(text.c_str(), stdout);
    return 0;
  }
  const fs::path script = a.train.output / "job.sbatch";
  for (const auto& job : queued_jobs())
    if (job.script == script)
      throw Error(ExitCode::kUsage, a.train.output.string(),
                  "job " + job.id + " works on this run already",
                  "scancel " + job.id + " ends it; it loses nothing");
  std::error_code error;
  fs::create_directories(a.train.output, error);
  if (error) throw_io_error(a.train.output, "cannot create", error.value());
  write_file_atomic(script, text);
  fmt::print("{}\n", submit_script(script));
  return 0;
}

}  // namespace

Subcommand add_sbatch_command(CLI::App& program) {
  auto a = std::make_shared<Arguments>();
  CLI::App* app =
      program.add_subcommand("sbatch", "write RUN_DIR/job.sbatch, submit it, print the job's id");
  app->footer(
      "example:\n"
      "  nf-launch sbatch --config configs/pretrain/nfnet_f0.toml --set data.path=/data/images "
      "--output runs/f0 \\\n    --nodes 2 --gpus-per-node 8 --time 12:00:00 --launcher srun\n"
      "Preempted, out of time or killed, the job requeues itself and continues. With --array 0-3, "
      "{task} in --set\nstands for the element's number (--set run.seed={task}); each has "
      "RUN_DIR/task_NUMBER.");
  app->add_option("--config", a->train.config, "TOML file of the run")->required();
  app->add_option("--set", a->train.overrides, "key=value, overrides the file; may be repeated")
      ->allow_extra_args(false);
  app->add_option("--output", a->train.output, "run directory, seen by all nodes")->required();
  add_resource_options(*app, a->resources);
  app->add_option("--array", a->array, "a run for each of these numbers, as sbatch takes it");
  app->add_option("--name", a->name, "of the job; default: nf-RUN_DIR");
  app->add_flag("--print,--dry-run", a->print, "print the script and submit nothing");
  app->add_option("--programs", a->programs, "folder of nf-train; default: this program's");
  return {app, [a] { return run(*a); }};
}

}  // namespace nf::launch

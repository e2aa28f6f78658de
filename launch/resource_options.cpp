// What a user may ask of the cluster.
#include <unistd.h>

#include <cstdlib>

#include "core/error.h"
#include "launch/launch_commands.h"

namespace nf::launch {

void check_mpirun_as_root() {
  if (::geteuid() != 0) return;
  if (std::getenv("OMPI_ALLOW_RUN_AS_ROOT") && std::getenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"))
    return;
  throw Error(ExitCode::kUsage, "mpirun", "refuses to run as root",
              "take another user; in a container set OMPI_ALLOW_RUN_AS_ROOT=1 and "
              "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1");
}

void add_resource_options(CLI::App& app, BatchResources& r) {
  const auto number = [&](const char* name, int64_t& target, int64_t least, const char* help) {
    app.add_option(name, target, help)
        ->check(CLI::Range(least, int64_t{1} << 20))
        ->capture_default_str();
  };
  number("--nodes", r.nodes, 1, "nodes");
  number("--ranks", r.ranks, 0, "processes of a run in all; 0: one a node, or one a GPU");
  number("--cpus-per-task", r.cpus_per_task, 0, "cores of a rank; 0: run.threads_per_rank");
  number("--gpus-per-node", r.gpus_per_node, 0, "GPUs of a node");
  app.add_option("--partition", r.partition, "Slurm partition");
  app.add_option("--account", r.account, "Slurm account");
  app.add_option("--qos", r.qos, "Slurm quality of service");
  app.add_option("--time", r.time, "time limit of one life of the job, as sbatch takes it");
  app.add_option("--sbatch", r.more, "a further option of sbatch, as --sbatch=--constraint=a100")
      ->allow_extra_args(false);
  number("--signal-seconds", r.signal_seconds, 1,
         "ask the job to save so long before its end: more than a step and a save take");
  number("--max-restarts", r.max_restarts, 0,
         "restarts in a row without a newer checkpoint; restarts that progress are not counted");
  app.add_option("--launcher", r.launcher, "what starts the ranks")
      ->check(CLI::IsMember({"mpirun", "srun"}))
      ->capture_default_str();
}

}  // namespace nf::launch

// The commands of nf-launch, and the options that it shares with nf-sweep submit.
#pragma once

#include "core/command_line.h"
#include "launch/batch_script.h"

namespace nf::launch {

Subcommand add_sbatch_command(CLI::App& program);
Subcommand add_local_command(CLI::App& program);

// Open MPI refuses root unless the environment allows it; told before a job fails of it. Throws
// Error(kUsage).
void check_mpirun_as_root();

void add_resource_options(CLI::App& app, BatchResources& resources);

}  // namespace nf::launch

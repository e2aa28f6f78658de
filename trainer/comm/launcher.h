// Which launcher started this process and with how many ranks, read from the environment that it
// leaves. Free of MPI, so a program without a launcher (or without MPI) runs on the local
// communicator and never initializes MPI.
#pragma once

#include <functional>

namespace nf::train {

// Like std::getenv: null when the variable is absent. Libraries read no environment, so the program
// passes it.
using Environment = std::function<const char*(const char*)>;

// Started by mpirun, mpiexec or as a task of srun.
bool launched_by_mpi(const Environment& get);

// How many ranks the launcher says it started; 0 when it does not say. Differs from the
// communicator's size when launcher and MPI library do not understand each other (srun without
// --mpi=pmix): N ranks that each believe to be alone.
int launched_ranks(const Environment& get);

}  // namespace nf::train

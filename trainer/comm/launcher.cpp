// See launcher.h.
#include "trainer/comm/launcher.h"

#include <charconv>
#include <cstring>

namespace nf::train {
namespace {

int positive_number(const char* text) {
  if (!text) return 0;
  int value = 0;
  const char* const end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  return error == std::errc() && stop == end && value > 0 ? value : 0;
}

}  // namespace

bool launched_by_mpi(const Environment& get) {
  // Open MPI; PMIx and PMI launchers (srun --mpi=pmix, MPICH, Intel MPI).
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
    if (get(name)) return true;
  // A batch script has SLURM_PROCID as well; only tasks of a step have this one.
  return get("SLURM_PROCID") && get("SLURM_STEP_NUM_TASKS");
}

int launched_ranks(const Environment& get) {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"})
    if (const int n = positive_number(get(name)); n > 0) return n;
  return get("SLURM_PROCID") ? positive_number(get("SLURM_STEP_NUM_TASKS")) : 0;
}

}  // namespace nf::train

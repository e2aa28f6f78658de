// What the programs that may run on several ranks have in common: the launcher's session, one
// report per failure, and the contract's exit code for the whole job.
#pragma once

#include <functional>
#include <memory>

#include "trainer/comm/communicator.h"
#include "trainer/watch/activity.h"
#include "trainer/watch/sentinel.h"
#include "trainer/watch/watchdog.h"

namespace nf::train {

struct Ranks {
  Communicator& comm;
  std::function<void(double)> set_timeout;  // comm.timeout_seconds, once the config is known
  Activity& activity;                       // what this rank does, for the watchdog
  std::unique_ptr<Watchdog> watchdog = {};  // null: one rank alone
  Sentinel* sentinel = nullptr;             // null: not started by a launcher
};

// Runs body on every rank, started by mpirun, srun or alone. Errors that all ranks share are
// printed by rank 0; any other failure is printed with its rank and ends the job. Sets the
// process-wide switches of the math libraries first.
int run_ranks(const char* name, int argc, char** argv, const std::function<int(Ranks&)>& body);

}  // namespace nf::train

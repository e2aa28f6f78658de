// Ranks started by mpirun or srun. No call blocks inside the library: every operation is started,
// then polled with a deadline, so that a rank which died, hangs or was stopped ends the job with a
// message that names it instead of keeping the allocation busy. This header needs no MPI headers.
#pragma once

#include <memory>

#include "trainer/comm/communicator.h"

namespace nf::train {

// Owns MPI_Init_thread and MPI_Finalize: one object a process, made at the start of main. Works
// without a launcher too (one rank). Throws Error(kRank) when MPI gives no MPI_THREAD_MULTIPLE.
class MpiSession {
 public:
  // argc and argv as main got them; timeout_seconds bounds every call (comm.timeout_seconds), may
  // be set later.
  MpiSession(int* argc, char*** argv, double timeout_seconds);
  // Finalizes when all ranks come here within the timeout. After a failed call it leaves MPI as it
  // is: finalizing would wait for the lost rank, and a process that exits without it makes the
  // launcher end the others.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  // All ranks, on a communicator of its own; lives as long as the session.
  Communicator& communicator();
  // One more, for a thread of its own (collective: all ranks make the same ones in the same order).
  // Must not outlive the session.
  std::unique_ptr<Communicator> duplicate();
  void set_timeout(double seconds);  // of all communicators of the session

 private:
  struct State;
  std::shared_ptr<State> state_;  // shared with all communicators
  std::unique_ptr<Communicator> world_;
  friend class MpiCommunicator;
};

}  // namespace nf::train

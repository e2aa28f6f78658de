// A job that loses a rank, for mpi_lost_rank_test: the last rank sleeps instead of joining the
// second barrier. The others must get an Error that names it; the program then does what every main
// does: print it, end the job with the error's code.
#include <cstdio>
#include <thread>

#include "core/program.h"
#include "trainer/comm/mpi.h"

int main(int argc, char** argv) {
  nf::train::MpiSession session(&argc, &argv, 1.0);
  auto& comm = session.communicator();
  comm.barrier();
  if (comm.rank() == comm.size() - 1) std::this_thread::sleep_for(std::chrono::minutes(5));
  try {
    comm.barrier();
  } catch (...) {
    int code = 0;
    std::fputs(nf::describe_current_exception("mpi_lost_rank", &code).c_str(), stderr);
    comm.abort(code);
  }
  return 0;
}

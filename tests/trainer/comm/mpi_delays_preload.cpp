// LD_PRELOAD library for tests: before each MPI call that sends, receives or looks, in one of
// $NF_DELAY_ONE_IN of them, the thread sleeps up to $NF_DELAY_MS milliseconds. Ranks and threads
// then meet in orders that a calm machine never shows. Works through MPI's profiling interface.
#include <mpi.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <random>

namespace {

void pause_at_random() {
  static const char* const limit = getenv("NF_DELAY_MS");
  static const char* const rarity = getenv("NF_DELAY_ONE_IN");
  if (limit == nullptr) return;
  thread_local std::minstd_rand random(
      static_cast<unsigned>(std::chrono::steady_clock::now().time_since_epoch().count()) ^
      static_cast<unsigned>(getpid()));
  if (rarity != nullptr && random() % static_cast<unsigned>(atoi(rarity)) != 0) return;
  usleep(static_cast<useconds_t>(random() % static_cast<unsigned>(1 + 1000 * atoi(limit))));
}

}  // namespace

extern "C" {

// By this a test sees that the library is there.
extern const int nf_mpi_delays;
const int nf_mpi_delays = 1;

int MPI_Isend(const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
              MPI_Request* request) {
  pause_at_random();
  return PMPI_Isend(data, count, type, to, tag, comm, request);
}

int MPI_Irecv(void* data, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm,
              MPI_Request* request) {
  pause_at_random();
  return PMPI_Irecv(data, count, type, from, tag, comm, request);
}

int MPI_Ibcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm comm,
               MPI_Request* request) {
  pause_at_random();
  return PMPI_Ibcast(data, count, type, root, comm, request);
}

int MPI_Iallreduce(const void* from, void* to, int count, MPI_Datatype type, MPI_Op op,
                   MPI_Comm comm, MPI_Request* request) {
  pause_at_random();
  return PMPI_Iallreduce(from, to, count, type, op, comm, request);
}

int MPI_Test(MPI_Request* request, int* done, MPI_Status* status) {
  pause_at_random();
  return PMPI_Test(request, done, status);
}

int MPI_Testall(int count, MPI_Request requests[], int* done, MPI_Status statuses[]) {
  pause_at_random();
  return PMPI_Testall(count, requests, done, statuses);
}
}

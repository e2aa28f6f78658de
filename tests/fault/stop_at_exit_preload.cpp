// Preloaded into a rank: stops it (SIGSTOP) while its process ends, when main() has returned and
// libraries are taken down. NF_STOP_AT_EXIT names the rank.
#include <signal.h>

#include <cstdlib>
#include <cstring>

namespace {

[[gnu::destructor]] void stop_at_exit() {
  const char* const wanted = std::getenv("NF_STOP_AT_EXIT");
  const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
  if (wanted && rank && std::strcmp(wanted, rank) == 0) raise(SIGSTOP);
}

}  // namespace

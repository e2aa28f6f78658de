// N ranks inside one process, each on its own thread: the communicator of tests, of ThreadSanitizer
// and of anything that wants several ranks without a launcher. Same semantics as MPI, with two
// differences that a test needs: abort() throws Error(kRank) on the calling rank and in every call
// of the others instead of ending the process, and ranks that make different calls are told so
// instead of getting garbage.
#pragma once

#include <functional>
#include <memory>

#include "trainer/comm/communicator.h"

namespace nf::train {

class ThreadsGroup {
 public:
  // A call in which some rank does not arrive within timeout_seconds throws Error(kRank) on all
  // ranks that wait there and names those that did not come; after that every call on the group
  // throws the same.
  explicit ThreadsGroup(int ranks, double timeout_seconds = 60.0);
  ~ThreadsGroup();
  ThreadsGroup(const ThreadsGroup&) = delete;
  ThreadsGroup& operator=(const ThreadsGroup&) = delete;

  int size() const;
  // Rank's communicator, owned by the group; for use by one thread at a time.
  Communicator& communicator(int rank);

  // Calls body once per rank, all at the same time, and returns when the last has returned. When
  // ranks throw, the others are woken; the exception of the rank that threw first is rethrown.
  void run(const std::function<void(Communicator&)>& body);

 private:
  struct Shared;
  class Member;
  std::unique_ptr<Shared> shared_;
  std::vector<std::unique_ptr<Member>> members_;
};

}  // namespace nf::train

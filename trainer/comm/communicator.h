// The ranks of a run as the trainer sees them. One interface, four backends (local, threads, mpi,
// nccl), one conformance suite (tests/trainer/comm). Every call is collective: all ranks make the
// same calls in the same order. A call that does not finish within the timeout throws Error(kRank)
// naming this rank, the call and the peers it waits for where known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trainer/comm/peer_memory.h"

namespace nf::train {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  virtual void barrier() = 0;
  virtual void broadcast(std::span<std::byte> data, int root) = 0;
  // Element-wise over ranks, result on every rank. Integers, so order cannot matter.
  virtual void all_reduce_max(std::span<int64_t> data) = 0;
  virtual void all_reduce_sum(std::span<int64_t> data) = 0;
  // Rank i gives send[j] (send_bytes[j] bytes) to rank j. Offsets are prefix sums.
  virtual void all_to_all(const std::byte* send, std::span<const size_t> send_bytes,
                          std::byte* receive, std::span<const size_t> receive_bytes) = 0;
  // Every rank's piece (bytes[r] long), in rank order, to every rank. send may be the rank's own
  // place in receive.
  virtual void all_gather(const std::byte* send, std::byte* receive,
                          std::span<const size_t> bytes) = 0;
  // The library's own float sum: fast, order not fixed (comm.reduction = "fast").
  virtual void all_reduce_sum_fast(std::span<float> data) = 0;
  // A block of memory of this rank that all ranks read and write in place; null where they cannot
  // (several hosts, no common memory). Collective; sizes may differ.
  virtual std::unique_ptr<PeerMemory> share(size_t bytes) = 0;

  virtual double timeout_seconds() const = 0;
  // Throws Error(kRank) when the group cannot go on: for waits that do not go through a call.
  virtual void check_group() = 0;
  // This rank gives up: its calls under way in other threads, and all later ones, throw
  // Error(kRank).
  virtual void interrupt(const std::string& why) = 0;
  // Ends every rank of the job with this exit code. Does not return. The only call allowed after an
  // Error(kRank).
  [[noreturn]] virtual void abort(int exit_code) = 0;
};

}  // namespace nf::train

// The communicator of a run with one rank: every collective is a copy or nothing at all. A run
// started without a launcher uses it, so that a laptop needs no MPI.
#pragma once

#include "trainer/comm/communicator.h"

namespace nf::train {

class LocalCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void barrier() override {}
  void broadcast(std::span<std::byte> data, int root) override;
  void all_reduce_max(std::span<int64_t>) override {}
  void all_reduce_sum(std::span<int64_t>) override {}
  void all_to_all(const std::byte* send, std::span<const size_t> send_bytes, std::byte* receive,
                  std::span<const size_t> receive_bytes) override;
  void all_gather(const std::byte* send, std::byte* receive,
                  std::span<const size_t> bytes) override;
  void all_reduce_sum_fast(std::span<float>) override {}
  std::unique_ptr<PeerMemory> share(size_t bytes) override;
  double timeout_seconds() const override { return 1e9; }
  void check_group() override {}
  void interrupt(const std::string&) override {}
  // Ends the process at once, without destructors.
  [[noreturn]] void abort(int exit_code) override;
};

}  // namespace nf::train

// One rank of a group whose other ranks do not exist: each is taken to do and hold what this one
// does. For dry runs of large jobs on one core: the whole control path runs, with the memory and
// the message counts of a real rank; sums over ranks are this rank's value times their number.
#pragma once

#include "trainer/comm/communicator.h"

namespace nf::train {

// What this rank would have sent.
struct Traffic {
  uint64_t collectives = 0;  // calls
  uint64_t messages = 0;     // to single ranks
  uint64_t bytes = 0;
};

class FakeCommunicator final : public Communicator {
 public:
  FakeCommunicator(int rank, int size);

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void barrier() override { count(0); }
  void broadcast(std::span<std::byte> data, int root) override;
  void all_reduce_max(std::span<int64_t> data) override { count(data.size_bytes()); }
  void all_reduce_sum(std::span<int64_t> data) override;
  void all_to_all(const std::byte* send, std::span<const size_t> send_bytes, std::byte* receive,
                  std::span<const size_t> receive_bytes) override;
  void all_gather(const std::byte* send, std::byte* receive,
                  std::span<const size_t> bytes) override;
  void all_reduce_sum_fast(std::span<float> data) override;
  std::unique_ptr<PeerMemory> share(size_t) override { return nullptr; }  // several hosts
  double timeout_seconds() const override { return 1e9; }
  void check_group() override {}
  void interrupt(const std::string&) override {}
  [[noreturn]] void abort(int exit_code) override;

  // Since the last call; not while another thread communicates.
  Traffic take_traffic();

 private:
  void count(size_t bytes);  // a collective with one message out

  const int rank_, size_;
  Traffic traffic_;
};

}  // namespace nf::train

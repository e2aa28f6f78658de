// Gradients between GPUs through NCCL; everything small, and every handshake, through a host
// communicator (MPI). A rank that does not come is named by the host's handshake before NCCL is
// entered; NCCL itself is initialized non-blocking and polled to a deadline, because its own waits
// have none. Part of the CUDA plug-in; see trainer/device/cuda_plugin.h.
#pragma once

#include <memory>

#include "trainer/comm/communicator.h"

namespace nf::train {

class NcclCommunicator final : public Communicator {
 public:
  // Collective over host's ranks, each with a GPU of its own. host must outlive this. Throws
  // Error(kRank).
  NcclCommunicator(Communicator& host, int device, double timeout_seconds);
  ~NcclCommunicator() override;

  int rank() const override;
  int size() const override;
  void barrier() override;
  // Device or host memory; the same kind on all ranks. Work on device memory begins after what
  // LibTorch's current stream was given before, and is done when the call returns.
  void broadcast(std::span<std::byte> data, int root) override;
  void all_to_all(const std::byte* send, std::span<const size_t> send_bytes, std::byte* receive,
                  std::span<const size_t> receive_bytes) override;
  void all_gather(const std::byte* send, std::byte* receive,
                  std::span<const size_t> bytes) override;
  void all_reduce_sum_fast(std::span<float> data) override;
  // Host memory only.
  void all_reduce_max(std::span<int64_t> data) override;
  void all_reduce_sum(std::span<int64_t> data) override;
  // None: gradients on a device are exchanged by NCCL.
  std::unique_ptr<PeerMemory> share(size_t) override { return nullptr; }
  double timeout_seconds() const override;
  void check_group() override;
  void interrupt(const std::string& why) override;
  // Through the host communicator, without waiting for the GPU.
  [[noreturn]] void abort(int exit_code) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nf::train

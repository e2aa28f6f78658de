// PeerMemory between processes: each rank's block is an anonymous file (memfd) that the others map
// through /proc/PID/fd. Free of MPI: the caller carries the addresses.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "trainer/comm/peer_memory.h"

namespace nf::train {

// How another process of the same host and user finds a block.
struct MemfdAddress {
  int64_t pid = -1, fd = -1;
  uint64_t bytes = 0;
  uint64_t token = 0;  // stands in the block's first word, so that a wrong file is told
};

class MemfdBlock {
 public:
  // A new block of this process; throws std::system_error when the system refuses.
  explicit MemfdBlock(size_t bytes);
  // Another process's; throws std::system_error where it cannot be opened or is not the one.
  explicit MemfdBlock(const MemfdAddress& address);
  ~MemfdBlock();
  MemfdBlock(const MemfdBlock&) = delete;
  MemfdBlock& operator=(const MemfdBlock&) = delete;

  const MemfdAddress& address() const { return address_; }
  std::byte* data() const { return static_cast<std::byte*>(map_) + kHead; }

 private:
  static constexpr size_t kHead = 4096;  // holds the token; keeps data() aligned to a page
  void map(int fd);

  MemfdAddress address_;
  int own_fd_ = -1;
  void* map_ = nullptr;
};

}  // namespace nf::train

// Memory that all ranks of one host read and write in place, so that a gradient sum needs no
// message. Made by Communicator::share(); nothing of it has a name in any file system, so nothing
// is left behind when ranks are killed.
#pragma once

#include <cstddef>
#include <memory>

namespace nf::train {

class PeerMemory {
 public:
  virtual ~PeerMemory() = default;
  // The block of `rank` in this process's address space: 64-byte aligned, zero-filled at the start.
  virtual std::byte* of(int rank) const = 0;
};

}  // namespace nf::train

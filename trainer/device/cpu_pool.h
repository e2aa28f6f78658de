// Memory of CPU tensors that is not given back between steps. A training step frees and takes the
// same gigabytes again; through malloc each large block comes fresh from the system, which zeroes
// it page by page. Here large blocks are cut from one range of address space, the lowest place that
// fits, neighbours joined when freed: the pages in use reach about as far as the step's peak, and
// after the first step none is new. The range is offered to the system for huge pages.
#pragma once

#include <c10/core/Allocator.h>

#include <cstddef>
#include <map>
#include <mutex>

namespace nf::train {

class CpuPool final : public c10::Allocator {
 public:
  // `capacity`: bytes of address space, not of memory. Throws Error(kOther) when it is refused. One
  // at a time in a process: torch's deleters are plain functions, which must find it.
  explicit CpuPool(size_t capacity);
  ~CpuPool() override;  // after the last of its blocks
  CpuPool(const CpuPool&) = delete;
  CpuPool& operator=(const CpuPool&) = delete;

  // Blocks of at least kSmallest bytes come from the range while it has room, others from torch's
  // own allocator; all are aligned to 64 bytes. Thread-safe.
  c10::DataPtr allocate(size_t bytes) override;
  c10::DeleterFnPtr raw_deleter() const override;
  void copy_data(void* to, const void* from, size_t bytes) const override;

  size_t used() const;       // bytes of the range in blocks
  size_t high_mark() const;  // the farthest that blocks ever reached

  static constexpr size_t kSmallest = 64 << 10;

 private:
  void* take(size_t bytes);  // null: no room
  void give_back(size_t begin);
  static void free_block(void* data);

  char* range_ = nullptr;  // as mapped; base_: its first huge page
  char* base_ = nullptr;
  size_t capacity_;
  mutable std::mutex mutex_;
  std::map<size_t, size_t> free_;    // begin -> size, no two touch
  std::map<size_t, size_t> blocks_;  // begin -> size
  size_t used_ = 0, high_mark_ = 0;
};

// Makes a pool the allocator of all CPU tensors of this process from now to its end, and has malloc
// keep what is freed. False, and nothing is changed, where the process may not reserve so much
// address space (ulimit -v).
bool use_cpu_pool();

}  // namespace nf::train

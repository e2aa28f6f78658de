// See cpu_pool.h.
#include "trainer/device/cpu_pool.h"

#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <iterator>
#include <limits>

#include "core/atomic_file.h"
#include "core/check.h"
#include "core/error.h"

namespace nf::train {
namespace {

constexpr size_t kGrain = 4096;  // sizes are rounded up to it
constexpr size_t kHugePage = size_t{2} << 20;
#ifdef __SANITIZE_THREAD__
constexpr size_t kProcessRange = size_t{1} << 36;  // ThreadSanitizer leaves no 4 TiB
#else
constexpr size_t kProcessRange = size_t{1} << 42;  // 4 TiB: more than any host's memory
#endif

constexpr int kLargestHeapBlock = 32 << 20;  // the most that glibc accepts

CpuPool* the_pool = nullptr;

size_t round_up(size_t bytes, size_t grain) { return (bytes + grain - 1) / grain * grain; }

}  // namespace

CpuPool::CpuPool(size_t capacity) : capacity_(round_up(capacity, kHugePage)) {
  NF_CHECK(the_pool == nullptr, "one pool at a time");
  void* range = ::mmap(nullptr, capacity_ + kHugePage, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) throw_io_error("memory", "cannot reserve address space", errno);
  range_ = static_cast<char*>(range);
  base_ = range_ + (kHugePage - reinterpret_cast<uintptr_t>(range_) % kHugePage) % kHugePage;
  ::madvise(base_, capacity_, MADV_HUGEPAGE);  // a system without them uses small pages
  free_[0] = capacity_;
  the_pool = this;
}

CpuPool::~CpuPool() {
  the_pool = nullptr;
  ::munmap(range_, capacity_ + kHugePage);
}

c10::DataPtr CpuPool::allocate(size_t bytes) {
  void* data = bytes >= kSmallest ? take(round_up(bytes, kGrain)) : nullptr;
  if (data == nullptr) data = c10::GetDefaultCPUAllocator()->raw_allocate(bytes);
  return {data, data, &free_block, c10::Device(c10::DeviceType::CPU)};
}

c10::DeleterFnPtr CpuPool::raw_deleter() const { return &free_block; }

void CpuPool::free_block(void* data) {
  const auto* byte = static_cast<const char*>(data);
  if (the_pool != nullptr && byte >= the_pool->base_ &&
      byte < the_pool->base_ + the_pool->capacity_)
    the_pool->give_back(static_cast<size_t>(byte - the_pool->base_));
  else
    c10::GetDefaultCPUAllocator()->raw_deallocate(data);
}

void CpuPool::copy_data(void* to, const void* from, size_t bytes) const {
  default_copy_data(to, from, bytes);
}

size_t CpuPool::used() const {
  const std::lock_guard lock(mutex_);
  return used_;
}

size_t CpuPool::high_mark() const {
  const std::lock_guard lock(mutex_);
  return high_mark_;
}

void* CpuPool::take(size_t bytes) {
  const std::lock_guard lock(mutex_);
  const auto place =
      std::find_if(free_.begin(), free_.end(), [&](const auto& f) { return f.second >= bytes; });
  if (place == free_.end()) return nullptr;
  const auto [begin, size] = *place;
  free_.erase(place);
  if (size > bytes) free_[begin + bytes] = size - bytes;
  blocks_[begin] = bytes;
  used_ += bytes;
  high_mark_ = std::max(high_mark_, begin + bytes);
  return base_ + begin;
}

void CpuPool::give_back(size_t begin) {
  const std::lock_guard lock(mutex_);
  const auto block = blocks_.find(begin);
  size_t bytes = block->second;
  blocks_.erase(block);
  used_ -= bytes;
  const auto next = free_.lower_bound(begin);
  if (next != free_.end() && next->first == begin + bytes) {
    bytes += next->second;
    free_.erase(next);
  }
  const auto after = free_.lower_bound(begin);
  if (after != free_.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == begin) {
      before->second += bytes;
      return;
    }
  }
  free_[begin] = bytes;
}

bool use_cpu_pool() {
  try {
    static CpuPool* const pool = new CpuPool(kProcessRange);  // never destroyed: tensors of statics
    c10::SetCPUAllocator(pool, 1);                            // outlive any object here
    // The scratch memory of oneDNN stays in the heap.
    ::mallopt(M_MMAP_THRESHOLD, kLargestHeapBlock);
    ::mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace nf::train

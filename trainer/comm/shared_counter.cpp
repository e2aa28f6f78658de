// See shared_counter.h. std::atomic::wait sleeps on a private futex, which other processes cannot
// wake; hence the system call itself, without FUTEX_PRIVATE_FLAG.
#include "trainer/comm/shared_counter.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>

namespace nf::train {
namespace {

void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

uint32_t* word(std::atomic<uint32_t>& a) { return reinterpret_cast<uint32_t*>(&a); }

}  // namespace

void SharedCounter::post(uint32_t new_value) {
  value.store(new_value, std::memory_order_seq_cst);
  if (sleepers.load(std::memory_order_seq_cst) > 0)
    syscall(SYS_futex, word(value), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

bool SharedCounter::wait(uint32_t target, const Deadline& deadline,
                         const std::function<void()>& interrupted) {
  for (int i = 0; i < 64; ++i) {  // about a microsecond: a peer on another core may be almost there
    if (reached(target)) return true;
    cpu_pause();
  }
  constexpr timespec kSlice{0, 20'000'000};
  for (;;) {
    // A killed sleeper leaves its count behind: later posts then make one system call too many.
    sleepers.fetch_add(1, std::memory_order_seq_cst);
    const uint32_t seen = value.load(std::memory_order_seq_cst);
    if (static_cast<int32_t>(seen - target) < 0)
      syscall(SYS_futex, word(value), FUTEX_WAIT, seen, &kSlice, nullptr, 0);
    sleepers.fetch_sub(1, std::memory_order_seq_cst);
    if (reached(target)) return true;
    if (deadline.passed()) return false;
    if (interrupted) interrupted();
  }
}

}  // namespace nf::train

// A number that only grows, in memory that several threads or processes see: one of them posts, the
// others wait without burning their core. What was written before a post is visible after the wait
// for it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "trainer/comm/deadline.h"

namespace nf::train {

// Zero-filled memory is a counter at 0. Values compare modulo 2^32: waits must be less than 2^31
// behind or ahead.
struct alignas(64) SharedCounter {
  std::atomic<uint32_t> value;
  std::atomic<uint32_t> sleepers;

  void post(uint32_t new_value);
  bool reached(uint32_t target) const {
    return static_cast<int32_t>(value.load(std::memory_order_acquire) - target) >= 0;
  }
  // False when the deadline passed first. `interrupted`, called every few milliseconds while the
  // counter stands still, may throw to end the wait.
  bool wait(uint32_t target, const Deadline& deadline, const std::function<void()>& interrupted);
};
static_assert(sizeof(SharedCounter) == 64);
static_assert(std::atomic<uint32_t>::is_always_lock_free);

}  // namespace nf::train

// A parallel loop whose threads help each other: at::parallel_for gives each thread its part once,
// and all wait for the one whose core is slower at the moment (another tenant of the host, an
// interrupt, the main thread that comes late).
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "core/check.h"

namespace nf::model {

// How many blocks of `size` hold n, the last one perhaps not full.
inline int64_t blocks_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

// What is left of a thread's part: its own thread takes from the front, others from the back.
class alignas(64) Share {
 public:
  void set(uint32_t begin, uint32_t end) { left_.store(packed(begin, end)); }
  // The next index, or -1.
  int64_t take(bool own) {
    uint64_t seen = left_.load(std::memory_order_relaxed);
    for (;;) {
      const auto begin = static_cast<uint32_t>(seen), end = static_cast<uint32_t>(seen >> 32);
      if (begin >= end) return -1;
      const uint64_t rest = own ? packed(begin + 1, end) : packed(begin, end - 1);
      if (left_.compare_exchange_weak(seen, rest, std::memory_order_relaxed))
        return own ? begin : end - 1;
    }
  }

 private:
  static uint64_t packed(uint32_t begin, uint32_t end) { return uint64_t{end} << 32 | begin; }
  std::atomic<uint64_t> left_ = 0;
};

constexpr int64_t kMostSharing = 64;  // threads

// Calls body(begin, end) for [0, n) cut into blocks of `grain`, each once, on at::get_num_threads()
// threads, at most kMostSharing. Which thread takes which block is chance, so nothing may depend on
// it.
template <class Body>
void shared_for(int64_t n, int64_t grain, const Body& body) {
  const int64_t blocks = blocks_of(n, grain);
  const int64_t threads = std::min({int64_t{at::get_num_threads()}, blocks, kMostSharing});
  if (threads <= 1 || at::in_parallel_region()) {
    if (n > 0) body(int64_t{0}, n);
    return;
  }
  NF_CHECK(blocks <= UINT32_MAX);
  std::array<Share, kMostSharing> shares;
  for (int64_t t = 0; t < threads; ++t)
    shares[static_cast<size_t>(t)].set(static_cast<uint32_t>(blocks * t / threads),
                                       static_cast<uint32_t>(blocks * (t + 1) / threads));
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t)
      for (int64_t i = 0; i < threads; ++i) {
        Share& share = shares[static_cast<size_t>((t + i) % threads)];
        for (int64_t block = share.take(i == 0); block >= 0; block = share.take(i == 0))
          body(block * grain, std::min(n, (block + 1) * grain));
      }
  });
}

}  // namespace nf::model

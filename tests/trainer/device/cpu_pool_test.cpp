// The pool of CPU tensors: blocks never overlap, freed places are used again, a repeated pattern
// needs no more memory than its first round, several threads at once.
#include "trainer/device/cpu_pool.h"

#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace nf::train {
namespace {

constexpr size_t kMiB = 1 << 20;

bool inside(const CpuPool& pool, size_t bytes) {  // whether such a block comes from the range
  const size_t before = pool.used();
  const auto block = const_cast<CpuPool&>(pool).allocate(bytes);
  return pool.used() > before;
}

TEST(CpuPool, LargeBlocksComeFromTheRangeAndGoBack) {
  CpuPool pool(64 * kMiB);
  EXPECT_TRUE(inside(pool, CpuPool::kSmallest));
  EXPECT_FALSE(inside(pool, CpuPool::kSmallest - 1));
  EXPECT_EQ(pool.used(), 0u);
  EXPECT_FALSE(inside(pool, 65 * kMiB)) << "a full pool: torch's allocator serves";
  auto a = pool.allocate(3 * kMiB + 1);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.get()) % 64, 0u);
  std::memset(a.get(), 1, 3 * kMiB + 1);
}

TEST(CpuPool, FreedNeighboursBecomeOnePlace) {
  CpuPool pool(16 * kMiB);
  for (const auto& order : {std::vector<int>{0, 1, 2}, {2, 1, 0}, {0, 2, 1}, {1, 0, 2}}) {
    std::vector<c10::DataPtr> blocks;
    for (int i = 0; i < 3; ++i) blocks.push_back(pool.allocate(4 * kMiB));
    const void* lowest = blocks[0].get();
    for (const int i : order) blocks[static_cast<size_t>(i)].clear();
    const auto all = pool.allocate(16 * kMiB);  // needs the three places and the rest as one
    EXPECT_EQ(all.get(), lowest);
    EXPECT_EQ(pool.used(), 16 * kMiB);
  }
}

// Random sizes and lifetimes, each block filled with its own byte and checked when freed.
void churn(CpuPool& pool, unsigned seed, int rounds) {
  std::mt19937 random(seed);
  struct Held {
    c10::DataPtr data;
    size_t bytes;
    unsigned char mark;
  };
  std::vector<Held> held;
  for (int i = 0; i < rounds; ++i) {
    if (held.size() < 12 && random() % 3 != 0) {
      const size_t bytes = 1 + random() % (3 * kMiB);
      held.push_back({pool.allocate(bytes), bytes, static_cast<unsigned char>(random())});
      std::memset(held.back().data.get(), held.back().mark, bytes);
    } else if (!held.empty()) {
      const size_t at = random() % held.size();
      const auto* bytes = static_cast<const unsigned char*>(held[at].data.get());
      for (size_t b = 0; b < held[at].bytes; b += 997) ASSERT_EQ(bytes[b], held[at].mark);
      ASSERT_EQ(bytes[held[at].bytes - 1], held[at].mark);
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
}

TEST(CpuPool, BlocksNeverOverlap) {
  CpuPool pool(256 * kMiB);
  churn(pool, 1, 2000);
  EXPECT_EQ(pool.used(), 0u);
}

TEST(CpuPool, ThreadsAtOnce) {
  CpuPool pool(256 * kMiB);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) threads.emplace_back([&, t] { churn(pool, t, 300); });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(pool.used(), 0u);
}

TEST(CpuPool, ARepeatedPatternNeedsNoMore) {
  CpuPool pool(1024 * kMiB);
  churn(pool, 7, 200);
  const size_t first = pool.high_mark();
  ASSERT_GT(first, 0u);
  for (int i = 0; i < 50; ++i) churn(pool, 7, 200);
  EXPECT_EQ(pool.high_mark(), first);
}

// Last: it changes the process for good.
TEST(CpuPool, TensorsLiveInIt) {
  const at::Tensor before = at::ones({kMiB});  // of torch's own allocator, freed by it
  ASSERT_TRUE(use_cpu_pool());
  const auto* pool = dynamic_cast<CpuPool*>(c10::GetCPUAllocator());
  ASSERT_NE(pool, nullptr);
  at::Tensor a = at::ones({kMiB}), b = at::ones({16});
  EXPECT_EQ(pool->used(), 4 * kMiB);
  a.resize_({2 * static_cast<int64_t>(kMiB)});
  EXPECT_EQ(pool->used(), 8 * kMiB);
  EXPECT_EQ((a.narrow(0, 0, kMiB) + before).sum().item<float>(), 2.0f * kMiB);
  a.reset();
  EXPECT_EQ(pool->used(), 0u);
}

}  // namespace
}  // namespace nf::train

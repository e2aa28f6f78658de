// Loops whose threads take over each other's blocks: every index once, whoever is slow.
#include "models/nfnet/shared_for.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

namespace nf::test {
namespace {

struct Threads {
  explicit Threads(int n) : before(at::get_num_threads()) { at::set_num_threads(n); }
  ~Threads() { at::set_num_threads(before); }
  int before;
};

TEST(SharedFor, VisitsEveryIndexOnce) {
  for (const int count : {1, 2, 3, 7}) {
    const Threads threads(count);
    for (const int64_t n : {0, 1, 2, 5, 64, 1000, 4099})
      for (const int64_t grain : {1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
        model::shared_for(n, grain, [&](int64_t begin, int64_t end) {
          EXPECT_LT(begin, end);
          EXPECT_TRUE(count == 1 || n <= grain || end - begin <= grain);
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        for (const auto& v : visits) ASSERT_EQ(v, 1) << count << " threads, " << n << ", " << grain;
      }
  }
}

TEST(SharedFor, TakesOverFromASlowThread) {
  const Threads threads(2);
  constexpr int64_t kBlocks = 40;
  std::vector<int> taken_by(kBlocks, -1);
  model::shared_for(kBlocks, 1, [&](int64_t begin, int64_t) {
    const int thread = at::get_thread_num();
    taken_by[static_cast<size_t>(begin)] = thread;
    if (thread == 1) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  });
  int of_first = 0;
  for (const int thread : taken_by) {
    ASSERT_GE(thread, 0);
    of_first += thread == 0 ? 1 : 0;
  }
  EXPECT_GT(of_first, kBlocks / 2);  // its own half and blocks of the sleeper's
}

TEST(SharedFor, PassesOnWhatABlockThrows) {
  const Threads threads(2);
  EXPECT_THROW(model::shared_for(10, 1,
                                 [](int64_t begin, int64_t) {
                                   if (begin == 7) throw std::runtime_error("block 7");
                                 }),
               std::runtime_error);
}

}  // namespace
}  // namespace nf::test

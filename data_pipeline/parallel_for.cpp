// See parallel_for.h.
#include "data_pipeline/parallel_for.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/check.h"

namespace nf::data {

void parallel_for(uint64_t count, int workers, const std::function<void(uint64_t)>& body,
                  const std::function<void()>& watch) {
  NF_CHECK(workers >= 1);
  std::mutex mutex;
  std::condition_variable finished;
  std::atomic<uint64_t> next{0};
  std::atomic<bool> failed{false};
  uint64_t failed_index = count, running = 0;
  std::exception_ptr failure;

  const auto work = [&] {
    while (!failed) {
      const uint64_t i = next.fetch_add(1);
      if (i >= count) break;
      try {
        body(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        failed = true;
        if (i < failed_index) {
          failed_index = i;
          failure = std::current_exception();
        }
      }
    }
    const std::lock_guard lock(mutex);
    --running;
    finished.notify_one();
  };

  std::vector<std::jthread> threads;
  {
    std::unique_lock lock(mutex);
    running = std::min<uint64_t>(count, static_cast<uint64_t>(workers));
    for (uint64_t i = 0; i < running; ++i) threads.emplace_back(work);
    while (!finished.wait_for(lock, std::chrono::milliseconds(200), [&] { return running == 0; })) {
      lock.unlock();
      watch();
      lock.lock();
    }
  }
  threads.clear();  // joins
  watch();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace nf::data

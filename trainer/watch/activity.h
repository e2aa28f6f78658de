// What a rank's training thread is doing right now: written by that thread, read by the watchdog
// and, through heartbeats, by other ranks.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace nf::train {

// Parts of a run with a time limit of their own.
enum class Section : uint32_t { kInit, kLoad, kStep, kEvaluate, kSave, kEnd };
// What the thread waits for inside a section. Waiting for other ranks is not a rank's own fault.
enum class Wait : uint32_t { kNone, kData, kRanks };

const char* name(Section section);
const char* name(Wait wait);

class Activity {
 public:
  struct View {
    Section section = Section::kInit;
    Wait wait = Wait::kNone;
    uint64_t step = 0;
    double seconds = 0;  // since the section was entered or a step begun
  };

  void enter(Section section, uint64_t step) {
    step_.store(step, std::memory_order_relaxed);
    section_.store(section, std::memory_order_relaxed);
    wait_.store(Wait::kNone, std::memory_order_relaxed);
    since_.store(Clock::now().time_since_epoch().count(), std::memory_order_release);
  }
  void wait(Wait wait) { wait_.store(wait, std::memory_order_release); }
  View view() const {
    const auto since = Clock::duration(since_.load(std::memory_order_acquire));
    const auto now = Clock::now().time_since_epoch();
    return {section_.load(std::memory_order_relaxed), wait_.load(std::memory_order_relaxed),
            step_.load(std::memory_order_relaxed),
            std::chrono::duration<double>(now - since).count()};
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::atomic<Section> section_{Section::kInit};
  std::atomic<Wait> wait_{Wait::kNone};
  std::atomic<uint64_t> step_{0};
  std::atomic<Clock::duration::rep> since_{Clock::now().time_since_epoch().count()};
};

// For the time of a scope the thread waits for something.
class Waiting {
 public:
  Waiting(Activity* activity, Wait wait) : activity_(activity) {
    if (activity_) activity_->wait(wait);
  }
  ~Waiting() {
    if (activity_) activity_->wait(Wait::kNone);
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  Activity* activity_;
};

}  // namespace nf::train

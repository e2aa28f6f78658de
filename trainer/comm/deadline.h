// Waiting without hanging and without burning cores: a deadline that every collective call carries,
// and a pause that spins first (a peer on another core answers within microseconds) and then sleeps
// in growing steps (ranks that share a core must let each other run).
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>

namespace nf::train {

class Deadline {
 public:
  explicit Deadline(double seconds)
      : seconds_(seconds), end_(Clock::now() + to_duration(seconds)) {}

  bool passed() const { return Clock::now() >= end_; }
  double seconds() const { return seconds_; }  // the whole allowance
  std::chrono::steady_clock::time_point end() const { return end_; }

 private:
  using Clock = std::chrono::steady_clock;
  static Clock::duration to_duration(double seconds) {
    // Thirty years at most: a larger number would overflow the clock.
    return std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(std::clamp(seconds, 0.0, 1e9)));
  }

  double seconds_;
  Clock::time_point end_;
};

// One pause of a polling loop; make a new one for each wait.
class PollPause {
 public:
  void operator()() {
    if (spins_ < kSpins) {
      ++spins_;
      std::this_thread::yield();
      return;
    }
    std::this_thread::sleep_for(sleep_);
    sleep_ = std::min(sleep_ * 2, kLongest);
  }

 private:
  static constexpr int kSpins = 200;
  static constexpr std::chrono::microseconds kLongest{200};
  int spins_ = 0;
  std::chrono::microseconds sleep_{5};
};

}  // namespace nf::train

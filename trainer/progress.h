// What a person sees while a run works: one bar that redraws itself on a terminal, a plain line
// every ten seconds elsewhere. Used by rank 0 only.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace nf::train {

class Progress {
 public:
  Progress(uint64_t first_step, uint64_t total_steps);
  // After each update; prints at most ten times a second (terminal) or every ten seconds.
  void update(uint64_t step, double epoch, double loss, double learning_rate,
              double images_per_second);
  // A line of its own, above the bar.
  void message(const std::string& text);
  void finish();

 private:
  bool terminal_;
  uint64_t first_step_, total_steps_;
  std::chrono::steady_clock::time_point start_, last_;
  bool drawn_ = false;
};

std::string format_duration(double seconds);  // 3h05m, 4m10s, 12s

}  // namespace nf::train

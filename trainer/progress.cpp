// See progress.h.
#include "trainer/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

namespace nf::train {
using Clock = std::chrono::steady_clock;

std::string format_duration(double seconds) {
  const int64_t s = std::llround(seconds);
  if (s >= 86400) return fmt::format("{}d{:02}h", s / 86400, s / 3600 % 24);
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  if (s >= 60) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}s", s);
}

Progress::Progress(uint64_t first_step, uint64_t total_steps)
    : terminal_(isatty(STDERR_FILENO) != 0),
      first_step_(first_step),
      total_steps_(total_steps),
      start_(Clock::now()),
      last_(start_ - std::chrono::hours(1)) {}

void Progress::update(uint64_t step, double epoch, double loss, double learning_rate,
                      double images_per_second) {
  const auto now = Clock::now();
  const double since = std::chrono::duration<double>(now - last_).count();
  if (since < (terminal_ ? 0.1 : 10.0) && step != total_steps_) return;
  last_ = now;
  const double passed = std::chrono::duration<double>(now - start_).count();
  const double left = step > first_step_ ? passed / static_cast<double>(step - first_step_) *
                                               static_cast<double>(total_steps_ - step)
                                         : 0;
  const std::string text = fmt::format(
      "step {}/{}  epoch {:.2f}  loss {:.4f}  lr {:.4g}  {:.0f} img/s  left {}", step, total_steps_,
      epoch, loss, learning_rate, images_per_second, format_duration(left));
  if (terminal_) {
    const int width = 24,
              full = static_cast<int>(width * step / std::max<uint64_t>(1, total_steps_));
    std::string bar;
    for (int i = 0; i < width; ++i) bar += i < full ? "#" : "-";
    fmt::print(stderr, "\r\033[K[{}] {}", bar, text);
    drawn_ = true;
  } else {
    fmt::print(stderr, "{}\n", text);
  }
  std::fflush(stderr);
}

void Progress::message(const std::string& text) {
  fmt::print(stderr, "{}{}\n", drawn_ ? "\r\033[K" : "", text);
  std::fflush(stderr);
}

void Progress::finish() {
  if (drawn_) fmt::print(stderr, "\n");
  drawn_ = false;
}

}  // namespace nf::train

// See stop.h.
#include "trainer/stop.h"

#include <csignal>

namespace nf::train {
namespace {
volatile std::sig_atomic_t signal_seen = 0;
void remember_signal(int) { signal_seen = 1; }
}  // namespace

StopWatch::StopWatch(double wall_minutes)
    : start_(std::chrono::steady_clock::now()), wall_minutes_(wall_minutes) {
  struct sigaction action {};
  action.sa_handler = remember_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
}

StopWatch::~StopWatch() {
  std::signal(SIGTERM, SIG_DFL);
  std::signal(SIGUSR1, SIG_DFL);
}

StopReason StopWatch::reason() const {
  if (signal_seen) return StopReason::kSignal;
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start_;
  if (wall_minutes_ > 0 && passed.count() > wall_minutes_ * 60) return StopReason::kWallClock;
  return StopReason::kNone;
}

}  // namespace nf::train

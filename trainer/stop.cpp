// See stop.h.
#include "trainer/stop.h"

#include <csignal>

namespace nf::train {
namespace {
volatile std::sig_atomic_t signal_seen = 0;
void remember_signal(int) { signal_seen = 1; }
// Slurm's SIGTERM; SIGUSR1 and SIGUSR2 as mpirun and batch scripts forward them.
constexpr int kSignals[] = {SIGTERM, SIGUSR1, SIGUSR2};
}  // namespace

StopWatch::StopWatch(double wall_minutes, double job_end)
    : start_(std::chrono::steady_clock::now()), wall_minutes_(wall_minutes), job_end_(job_end) {
  struct sigaction action {};
  action.sa_handler = remember_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int signal : kSignals) sigaction(signal, &action, nullptr);
}

// A request to save that comes after the run's last save has nothing left to ask; by default it
// would kill the process that has just finished.
StopWatch::~StopWatch() {
  for (const int signal : kSignals) std::signal(signal, signal == SIGTERM ? SIG_DFL : SIG_IGN);
}

StopReason StopWatch::reason() const {
  if (signal_seen) return StopReason::kSignal;
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start_;
  if (wall_minutes_ > 0 && passed.count() > wall_minutes_ * 60) return StopReason::kWallClock;
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  if (job_end_ > 0 && job_end_ - now.count() < 30 + reserve_) return StopReason::kWallClock;
  return StopReason::kNone;
}

}  // namespace nf::train

// See sentinel.h.
#include "trainer/watch/sentinel.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <new>
#include <system_error>

#include "trainer/watch/process_state.h"

namespace nf::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

// The child: looks twice a second, until its rank is gone.
[[noreturn]] void watch(pid_t rank, const std::atomic<double>& patience) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_NAME, "nf-sentinel");
  for (const int s : {SIGTERM, SIGUSR1, SIGUSR2, SIGINT, SIGHUP}) ::signal(s, SIG_IGN);
  auto well = Clock::now(), last = well;
  for (;;) {
    ::usleep(500'000);
    if (::getppid() != rank) ::_exit(0);
    const auto now = Clock::now();
    // Stopped itself, with the whole machine or its session: nobody is to blame.
    if (seconds(now - last) > 2 || process_state(rank) != 'T') well = now;
    last = now;
    const double limit = patience;
    if (limit <= 0 || seconds(now - well) < limit) continue;
    char text[160];
    const int n = std::snprintf(text, sizeof text,
                                "error: process %d was stopped for %.1f s and is ended\n"
                                "hint: run the same command again\n",
                                static_cast<int>(rank), seconds(now - well));
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text, static_cast<size_t>(n));
    ::kill(rank, SIGKILL);
    ::_exit(0);
  }
}

}  // namespace

Sentinel::Sentinel(double patience) {
  void* page =
      ::mmap(nullptr, sizeof *patience_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
  patience_ = new (page) std::atomic<double>(patience);
  const pid_t rank = ::getpid();
  child_ = ::fork();
  if (child_ == 0) watch(rank, *patience_);
  // Without one the watchdogs of other ranks remain.
}

Sentinel::~Sentinel() {
  if (child_ > 0) {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }
  ::munmap(patience_, sizeof *patience_);
}

}  // namespace nf::train

// See local_run.h.
#include "launch/local_run.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <thread>

#include "core/error.h"
#include "launch/job_process.h"
#include "launch/restart_policy.h"

namespace nf::launch {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPollInterval = std::chrono::milliseconds(20);
constexpr double kLongestPause = 60;

// A life's descendants that outlived it came to us as their nearest subreaper.
void end_orphans() {
  for (bool any = true; any;) {
    any = false;
    std::ifstream children(fmt::format("/proc/self/task/{}/children", ::getpid()));
    for (pid_t child; children >> child;) {
      ::kill(child, SIGKILL);
      while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
      }
      any = true;
    }
  }
}

int one_life(const LocalOptions& o) {
  JobProcess job(o.ranks > 1 ? through_mpirun(o.ranks, o.train.words()) : o.train.words(), {}, -1);
  int passed_on = 0;
  for (;;) {
    if (const auto code = job.poll()) return *code;
    for (const int asked = o.stops(); passed_on < asked; ++passed_on)
      if (passed_on == 0)
        job.stop();
      else
        job.end();
    std::this_thread::sleep_for(kPollInterval);
  }
}

// False when the user wants to end in the meantime.
bool pause(const LocalOptions& o, double seconds) {
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (Clock::now() < end && o.stops() == 0) std::this_thread::sleep_for(kPollInterval);
  return o.stops() == 0;
}

// A killed process has no code of the contract.
int contract_code(int code) { return code > 128 ? static_cast<int>(ExitCode::kRank) : code; }

}  // namespace

int run_local(const LocalOptions& o) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  int64_t reached = newest_step(o.train.output);
  RestartBound bound(o.max_restarts, reached);
  double seconds = o.first_pause_seconds;
  for (;;) {
    const int code = one_life(o);
    end_orphans();
    if (code == 0 && std::filesystem::exists(o.train.output / "result.json")) return 0;
    const bool preempted = code == static_cast<int>(ExitCode::kPreempted);
    if (o.stops() > 0 || is_final(code) || (preempted && !o.restart_preempted))
      return contract_code(code == 0 ? static_cast<int>(ExitCode::kOther) : code);
    const int64_t step = newest_step(o.train.output);
    const std::string what =
        code == 0 ? "ended without result.json" : fmt::format("ended with code {}", code);
    if (!bound.allows(step)) {
      o.say(fmt::format("given up: {}, {} restarts without a newer checkpoint", what,
                        o.max_restarts));
      return contract_code(code == 0 ? static_cast<int>(ExitCode::kOther) : code);
    }
    if (step > reached || preempted) seconds = o.first_pause_seconds;
    reached = std::max(reached, step);
    o.say(fmt::format("{} at step {}; again in {:.0f} s", what, step, seconds));
    if (!pause(o, seconds)) return static_cast<int>(ExitCode::kPreempted);
    seconds = std::min(2 * seconds, kLongestPause);
  }
}

}  // namespace nf::launch

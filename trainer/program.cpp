// See program.h.
#include "trainer/program.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "core/program.h"
#include "trainer/agreement.h"
#include "trainer/comm/launcher.h"
#include "trainer/comm/local.h"
#include "trainer/comm/mpi.h"

namespace nf::train {
namespace {

constexpr double kStartSeconds = 600;   // until all ranks have found each other
constexpr double kSentinelSeconds = 6;  // until the config says otherwise

// MPI_Init has no time limit of its own: a rank that never starts would keep all others there.
class StartGuard {
 public:
  explicit StartGuard(double seconds)
      : thread_([this, seconds](const std::stop_token&) {
          std::unique_lock lock(mutex_);
          if (changed_.wait_for(lock, std::chrono::duration<double>(seconds),
                                [this] { return done_; }))
            return;
          std::fprintf(stderr,
                       "error: process %d: MPI did not start within %.0f s: another rank did not "
                       "come\nhint: look at the hosts of this job, then run it again\n",
                       static_cast<int>(getpid()), seconds);
          _exit(static_cast<int>(ExitCode::kRank));
        }) {}
  ~StartGuard() { done(); }
  StartGuard(const StartGuard&) = delete;
  StartGuard& operator=(const StartGuard&) = delete;
  void done() {
    const std::lock_guard lock(mutex_);
    done_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::jthread thread_;
};

int report(const char* name, const Communicator& comm, bool agreed) {
  int code = 0;
  const std::string text = describe_current_exception(name, &code);
  if (!agreed && comm.size() > 1) std::fprintf(stderr, "rank %d of %d: ", comm.rank(), comm.size());
  if (!agreed || comm.rank() == 0) std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
  return code;
}

int guarded(const char* name, Ranks& ranks, const std::function<int(Ranks&)>& body) {
  try {
    return body(ranks);
  } catch (const AgreedError&) {
    return report(name, ranks.comm, true);
  } catch (...) {
    const int code = report(name, ranks.comm, ranks.comm.size() == 1);
    if (ranks.comm.size() > 1) ranks.comm.abort(code);
    return code;
  }
}

}  // namespace

int run_ranks(const char* name, int argc, char** argv, const std::function<int(Ranks&)>& body) {
  // MKL: same bits from run to run whatever the alignment of its operands (oneMKL manual,
  // "Conditional numerical reproducibility"). It is read at MKL's first call.
  setenv("MKL_CBWR", "AUTO", 0);
  const auto get = [](const char* key) -> const char* { return std::getenv(key); };
  Activity activity;
  return run_program(name, [&] {
    if (!launched_by_mpi(get)) {
      LocalCommunicator alone;
      Ranks ranks{alone, [](double) {}, activity};
      return guarded(name, ranks, body);
    }
    Sentinel sentinel(kSentinelSeconds);
    StartGuard guard(kStartSeconds);
    MpiSession session(&argc, &argv, kStartSeconds);
    guard.done();
    Ranks ranks{session.communicator(), [&](double s) { session.set_timeout(s); }, activity};
    ranks.sentinel = &sentinel;
    if (ranks.comm.size() > 1)
      ranks.watchdog =
          std::make_unique<Watchdog>(ranks.comm, activity, WatchOptions{.watch_launcher = true});
    const int launched = launched_ranks(get);
    if (launched > 0 && launched != ranks.comm.size())
      throw Error(ExitCode::kRank, name,
                  "the launcher started " + std::to_string(launched) + " ranks, MPI sees " +
                      std::to_string(ranks.comm.size()),
                  "with srun use --mpi=pmix");
    return guarded(name, ranks, body);
  });
}

}  // namespace nf::train

// See program.h.
#include "trainer/program.h"

#include <ATen/Parallel.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "core/program.h"
#include "trainer/agreement.h"
#include "trainer/comm/launcher.h"
#include "trainer/comm/local.h"
#include "trainer/comm/mpi.h"
#include "trainer/watch/process_state.h"

namespace nf::train {
namespace {

constexpr double kStartSeconds = 600;   // until all ranks have found each other
constexpr double kSentinelSeconds = 6;  // until the config says otherwise

// Watches while there is no watchdog, before and after the run: MPI_Init and MPI_Finalize have no
// time limit of their own, and one rank that does not come would keep all others there. A rank that
// was stopped, perhaps before it had a sentinel, is seen by the ranks beside it on its host, and so
// is the launcher.
class LauncherGuard {
 public:
  LauncherGuard() = default;
  ~LauncherGuard() { done(); }
  LauncherGuard(const LauncherGuard&) = delete;
  LauncherGuard& operator=(const LauncherGuard&) = delete;

  // while_what: "started", "ended".
  void watch(const char* while_what, double seconds) {
    done();
    done_ = false;
    thread_ = std::jthread([this, while_what, seconds] { run(while_what, seconds); });
  }
  void done() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
      changed_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
  }

 private:
  void run(const char* while_what, double seconds) {
    using std::chrono::duration;
    const auto begin = std::chrono::steady_clock::now();
    const int launcher = getppid();
    double stopped = 0;  // seconds
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, duration<double>(0.5), [this] { return done_; })) {
      const int who = process_state(launcher) == 'T' ? launcher : stopped_child_of(launcher);
      stopped = who > 0 ? stopped + 0.5 : 0;
      if (stopped >= kSentinelSeconds) {
        if (who == launcher) ::kill(launcher, SIGKILL);  // or its caller waits for ever
        end("process " + std::to_string(who) +
            (who == launcher ? ", the launcher," : ", a rank of this host,") +
            " was stopped (SIGSTOP) while the job " + while_what);
      }
      if (duration<double>(std::chrono::steady_clock::now() - begin).count() > seconds)
        end("another rank did not come while the job " + std::string(while_what));
    }
  }
  [[noreturn]] static void end(const std::string& what) {
    std::fprintf(stderr,
                 "error: process %d: %s\nhint: look at the hosts of this job, then run it again\n",
                 static_cast<int>(getpid()), what.c_str());
    _exit(static_cast<int>(ExitCode::kRank));
  }
  static int stopped_child_of(int launcher) {  // 0: none
    const std::string id = std::to_string(launcher);
    std::ifstream children("/proc/" + id + "/task/" + id + "/children");
    for (int pid = 0; children >> pid;)
      if (process_state(pid) == 'T') return pid;
    return 0;
  }

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
    // Never destroyed: it looks on while the process ends, which takes libraries a tenth of a
    // second, and dies with it.
    static Sentinel* const sentinel = new Sentinel(kSentinelSeconds);
    LauncherGuard guard;
    guard.watch("started", kStartSeconds);
    MpiSession session(&argc, &argv, kStartSeconds);
    guard.done();
    Ranks ranks{session.communicator(), [&](double s) { session.set_timeout(s); }, activity};
    ranks.sentinel = sentinel;
    if (ranks.comm.size() > 1)
      ranks.watchdog =
          std::make_unique<Watchdog>(ranks.comm, activity, WatchOptions{.watch_launcher = true});
    const int launched = launched_ranks(get);
    if (launched > 0 && launched != ranks.comm.size())
      throw Error(ExitCode::kRank, name,
                  "the launcher started " + std::to_string(launched) + " ranks, MPI sees " +
                      std::to_string(ranks.comm.size()),
                  "with srun use --mpi=pmix");
    const int code = guarded(name, ranks, body);
    guard.watch("ended", kStartSeconds);
    return code;
  });
}

}  // namespace nf::train

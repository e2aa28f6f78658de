// Ends a job in which a rank is frozen, stuck or lost instead of letting it wait for ever. Every
// rank has a watchdog thread that sends heartbeats to rank 0 and gets rank 0's back, outside MPI.
// Rank 0 judges: a rank that is silent, or that stands still in a section beyond its limit while it
// does not wait for others, is at fault. If rank 0 is silent the others end the job themselves. A
// launcher (mpirun) that was stopped or died ends it too.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "trainer/comm/communicator.h"
#include "trainer/watch/activity.h"
#include "trainer/watch/heartbeat_socket.h"

namespace nf::train {

struct Suspect {
  int rank = -1;
  std::string host;
  Activity::View last;        // what is known of it
  double silent_seconds = 0;  // since its last sign of life
};

struct HangReport {
  std::string what;               // one sentence that names rank, host, step and section
  int witness = 0;                // the rank that reports
  bool stopped_launcher = false;  // the launcher is to be ended, or its caller waits for ever
  Suspect suspect;                // rank -1: not a rank (the launcher), or all wait for each other
  std::vector<Suspect> ranks;     // everyone, as the witness knows them
};
std::string to_json_text(const HangReport& report);

struct WatchOptions {
  double silence_seconds = 6;     // without a sign of life: frozen
  double section_seconds = 600;   // limit of every section but a step
  double least_step_seconds = 6;  // a step's limit: this or 10 x the slowest step so far
  bool watch_launcher = false;    // the parent process is a launcher of ranks
  // Called once, on the watchdog's thread, in place of ending the process (tests). By default the
  // report goes to stderr and to report_path, and the process ends with exit code 5.
  std::function<void(const HangReport&)> on_hang = {};
};

class Watchdog {
 public:
  // Collective: ranks tell each other where they listen. activity must outlive it.
  Watchdog(Communicator& comm, const Activity& activity, WatchOptions options);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // A step took this long (the slowest rank's): limits of later steps follow.
  void learn_step(double seconds);
  // Where hang-report.json goes; "" until the run directory is known.
  void set_report_path(const std::string& path);
  void set_limits(double silence_seconds, double section_seconds);
  // Ranks whose heartbeats never came (a firewall): they are watched by timeouts only. Rank 0.
  std::vector<int> unheard() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Peer {
    std::string host;
    std::optional<sockaddr_in> address;
    bool heard = false;
    Clock::time_point last;
    Activity::View view;
  };

  void exchange_addresses(Communicator& comm);
  void run(const std::stop_token& stop);
  void beat();
  void listen();
  std::optional<HangReport> judge();
  std::optional<HangReport> judge_launcher();
  std::optional<int> silent_rank(Clock::time_point now) const;
  std::optional<int> stuck_rank() const;
  double limit(const Activity::View& view) const;
  HangReport report(std::string what, int rank) const;
  void fire(const HangReport& report);

  const Activity& activity_;
  WatchOptions options_;
  const int rank_, world_;
  const int parent_;
  HeartbeatSocket socket_;
  uint64_t job_ = 0;
  std::vector<Peer> peers_;  // by rank; rank 0 uses all, others peers_[0]
  Clock::time_point launcher_well_;
  std::atomic<double> slowest_step_{0};
  std::atomic<int> steps_{0};
  mutable std::mutex mutex_;
  std::string report_path_;
  std::jthread thread_;
};

}  // namespace nf::train

// What can happen to a job: a fault drawn at random and done to a running mpirun at a random
// moment.
#pragma once

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "core/jsonl.h"
#include "core/rng.h"
#include "tests/support/process.h"

namespace nf::test {

enum class Fault {
  kKillRank,
  kKillSeveral,
  kKillLauncher,
  kTermRank,
  kTermLauncher,
  kUserSignalRank,
  kUserSignalLauncher,
  kStopRank,
  kStopSeveral,
  kStopLauncher,
  kFullDisk,
  kKillInSave,
  kCount
};

inline const char* name(Fault fault) {
  constexpr const char* kNames[] = {
      "KILL one rank",      "KILL several ranks", "KILL the launcher", "TERM one rank",
      "TERM the launcher",  "USR1 one rank",      "USR1 the launcher", "STOP one rank",
      "STOP several ranks", "STOP the launcher",  "full disk",         "KILL inside a save"};
  return kNames[static_cast<int>(fault)];
}

struct ChaosRun {
  std::filesystem::path directory;  // RUN_DIR
  std::filesystem::path disk_full;  // while this file exists, writes under RUN_DIR fail (preload)
};

inline void pause_ms(double ms) {
  std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(ms));
}

// Some of the ranks, at least one.
inline std::vector<pid_t> some(const std::vector<pid_t>& ranks, PositionRng& rng) {
  std::vector<pid_t> out;
  for (const pid_t p : ranks)
    if (rng.below(2) == 0) out.push_back(p);
  if (out.empty() && !ranks.empty()) out.push_back(ranks[rng.below(ranks.size())]);
  return out;
}

inline bool saving(const ChaosRun& run) {
  std::error_code ignored;
  for (std::filesystem::directory_iterator it(run.directory / "checkpoints", ignored), end;
       !ignored && it != end; it.increment(ignored))
    if (it->path().filename().string().starts_with(".tmp.step")) return true;
  return false;
}

// The name of a process, "" when it is gone.
inline std::string process_name(pid_t pid) {
  std::string name = slurp("/proc/" + std::to_string(pid) + "/comm");
  while (!name.empty() && name.back() == '\n') name.pop_back();
  return name;
}

// Whether something of ours runs that can see these ranks stop: another rank that has begun, or the
// sentinel of one of them. Until then a job is its launcher's alone, for the 0.3 s that a program
// takes to load.
inline bool seen_by_ours(const std::vector<pid_t>& stopped, const std::vector<pid_t>& ranks) {
  return std::any_of(ranks.begin(), ranks.end(), [&](pid_t rank) {
    if (std::find(stopped.begin(), stopped.end(), rank) == stopped.end())
      return process_name(rank) == "nf-train";
    const std::string id = std::to_string(rank);
    std::ifstream children("/proc/" + id + "/task/" + id + "/children");
    for (pid_t child; children >> child;)
      if (process_name(child) == "nf-sentinel") return true;
    return false;
  });
}

// Does it; the job may have ended before, or survive it.
inline void inflict(Fault fault, Process& job, const ChaosRun& run, PositionRng& rng) {
  const std::vector<pid_t> ranks = job.children();
  const auto each = [](const std::vector<pid_t>& pids, int signal) {
    for (const pid_t p : pids) ::kill(p, signal);
  };
  const auto stop = [&](const std::vector<pid_t>& pids) {
    if (seen_by_ours(pids, ranks)) each(pids, SIGSTOP);
  };
  const std::vector<pid_t> one =
      ranks.empty() ? ranks : std::vector<pid_t>{ranks[rng.below(ranks.size())]};
  switch (fault) {
    case Fault::kKillRank:
      return each(one, SIGKILL);
    case Fault::kKillSeveral:
      return each(some(ranks, rng), SIGKILL);
    case Fault::kKillLauncher:
      return job.signal(SIGKILL);
    case Fault::kTermRank:
      return each(one, SIGTERM);
    case Fault::kTermLauncher:
      return job.signal(SIGTERM);
    case Fault::kUserSignalRank:
      return each(one, SIGUSR1);
    case Fault::kUserSignalLauncher:
      return job.signal(SIGUSR1);
    case Fault::kStopRank:
      return stop(one);
    case Fault::kStopSeveral:
      return stop(some(ranks, rng));
    case Fault::kStopLauncher:
      if (ranks.empty()) return;  // nothing of ours runs yet that could see it
      return job.signal(SIGSTOP);
    case Fault::kFullDisk: {
      std::ofstream(run.disk_full) << "full\n";
      pause_ms(rng.uniform(0, 1500));
      std::filesystem::remove(run.disk_full);
      return;
    }
    case Fault::kKillInSave: {
      for (int i = 0; i < 2000 && job.running() && !saving(run); ++i) pause_ms(1);
      pause_ms(rng.uniform(0, 8));
      return each(ranks, SIGKILL);
    }
    case Fault::kCount:
      return;
  }
}

}  // namespace nf::test

// SIGKILL at random moments, to any process of a job of 1 to 8 ranks, and again after each restart,
// until every run is done: is every sample used exactly once per epoch? The job is the real data
// path (loader, trace, ledger, atomic checkpoint) in real processes; what stands for the weights is
// one counter for each sample, so a sample used twice or never stays visible in the final state.
//   kill_count [--kills 1000] [--seed 1] [--samples 10007] [--batch 96] [--epochs 3]
// Prints one JSON line; exit code 1 and the reason when a promise is broken.
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <thread>

#include "bench/synthetic_set.h"
#include "core/command_line.h"
#include "core/program.h"
#include "core/rng.h"
#include "data_pipeline/audit_run.h"
#include "tests/fault/kill_count_job.h"
#include "tests/support/paths.h"

namespace {

using namespace nf;
using namespace nf::data;
using test::JobOptions;
using test::State;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

std::vector<pid_t> children_of(pid_t pid) {
  std::ifstream in(fmt::format("/proc/{0}/task/{0}/children", pid));
  std::vector<pid_t> out;
  for (pid_t child; in >> child;) out.push_back(child);
  return out;
}

// Nothing a process holds may lie where a kill would leave it behind: shared memory, or temporary
// files beside the run.
bool holds_only(pid_t pid, const fs::path& folder) {
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(fmt::format("/proc/{}/fd", pid), ec)) {
    const std::string target = fs::read_symlink(entry.path(), ec).string();
    // Inherited by this program and so by its ranks, from ctest for instance.
    if (fs::read_symlink("/proc/self/fd" / entry.path().filename(), ec).string() == target)
      continue;
    if (target.starts_with("/dev/shm/")) return false;
    const bool temporary = target.starts_with(fs::temp_directory_path().string() + "/");
    if (temporary && !target.starts_with(folder.string()) && entry.path().filename().string() > "2")
      return false;
  }
  std::ifstream maps(fmt::format("/proc/{}/maps", pid));
  for (std::string line; std::getline(maps, line);)
    if (line.find(" /dev/shm/") != std::string::npos) return false;
  return true;
}

class Driver {
 public:
  explicit Driver(const JobOptions& o) : options_(o), rng_(o.seed, Stream::kTest, 1) {}

  Json run() {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // ranks of a killed launcher become ours, to be waited for
    make_set();
    const auto begin = Clock::now();
    for (uint64_t number = 0; kills_ < options_.kills; ++number) one_run(number);
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    return {{"program", "kill_count"},
            {"kills", kills_},
            {"launchers_killed", launchers_},
            {"whole_jobs_killed", jobs_},
            {"ranks_killed", kills_ - launchers_ - jobs_},
            {"left_a_half_written_checkpoint", torn_},
            {"lives", lives_},
            {"runs", runs_},
            {"epochs_of_each", options_.epochs},
            {"samples", options_.samples},
            {"steps_replayed", replayed_},
            {"seconds", seconds},
            {"verdict", "pass"}};
  }

 private:
  void make_set() {  // by a child: this process never touches the HDF5 library
    const pid_t pid = ::fork();
    if (pid == 0) {
      test::run_as_process([&] {
        bench::write_synthetic_set({dir_ / "set",
                                    options_.samples,
                                    1000,
                                    [](uint64_t i) { return bench::synthetic_jpeg(16, i % 97); },
                                    {}});
      });
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the data set could not be made");
  }

  void one_run(uint64_t number) {
    const fs::path run = dir_ / fmt::format("run-{}", number);
    fs::create_directories(run);
    while (!live(run)) {
    }
    verify(run);
    ++runs_;
    fs::remove_all(run);
  }

  // One life of the job; true when it ended by itself, its work done.
  bool live(const fs::path& run) {
    ++lives_;
    ledger_moved_ = Clock::now();
    const uint64_t world = 1 + rng_.below(8);
    const PositionRng draws(options_.seed, Stream::kTest, 1000 + lives_);
    const pid_t launcher = ::fork();
    if (launcher == 0) test::launch(options_, dir_ / "set", run, world, draws);
    // Mostly while it works, sometimes while it starts.
    const double wait = rng_.uniform() < 0.15 ? rng_.uniform(0, 0.01) : rng_.uniform(0, 0.25);
    const auto begin = Clock::now();
    int status = 0;
    while (kills_ >= options_.kills ||
           std::chrono::duration<double>(Clock::now() - begin).count() < wait) {
      if (::waitpid(launcher, &status, WNOHANG) == launcher) return ended(status);
      check(goes_on(run), "a job hangs");
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    const bool aimed = rng_.uniform() < 0.15 && wait_for_write(run);
    strike(launcher, aimed);
    while (::waitpid(-1, &status, 0) > 0 || errno == EINTR) {  // until nobody is left
    }
    ++kills_;
    for (const auto& entry : fs::directory_iterator(run))
      torn_ += entry.path().filename().string().starts_with("state.bin.tmp.");
    return false;
  }

  // A job that hangs writes no ledger lines; a slow disk only makes them rare.
  bool goes_on(const fs::path& run) {
    std::error_code ec;
    const uint64_t bytes = fs::file_size(run / "ledger.jsonl", ec);
    if (const auto now = Clock::now(); bytes != ledger_bytes_) {
      ledger_bytes_ = bytes;
      ledger_moved_ = now;
    }
    return Clock::now() - ledger_moved_ < std::chrono::seconds(60);
  }

  // Until a checkpoint is half written; false when none begins in half a second.
  static bool wait_for_write(const fs::path& run) {
    const auto begin = Clock::now();
    while (Clock::now() - begin < std::chrono::milliseconds(500)) {
      std::error_code ec;
      for (const auto& entry : fs::directory_iterator(run, ec))
        if (entry.path().filename().string().starts_with("state.bin.tmp.")) return true;
    }
    return false;
  }

  void strike(pid_t launcher, bool aimed) {
    const auto ranks = children_of(launcher);
    const double kind = rng_.uniform();
    if (aimed && !ranks.empty()) {
      ::kill(ranks[0], SIGKILL);  // the one that writes
      return;
    }
    if (!ranks.empty())
      check(holds_only(ranks[rng_.below(ranks.size())], dir_.path()),
            "a rank holds shared memory or a temporary file");
    if (kind < 0.15 || ranks.empty()) {
      ++launchers_;
      ::kill(launcher, SIGKILL);
    } else if (kind < 0.3) {
      ++jobs_;
      ::kill(-launcher, SIGKILL);
      ::kill(launcher, SIGKILL);
    } else {
      ::kill(ranks[rng_.below(ranks.size())], SIGKILL);
    }
  }

  bool ended(int status) {
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0,
          fmt::format("a job that nobody killed ended with status {}", status));
    return true;
  }

  void verify(const fs::path& run) {
    const State state = test::load_state(run, options_.samples);
    for (uint64_t i = 0; i < options_.samples; ++i)
      check(state.counts[i] == options_.epochs,
            fmt::format("sample {} was used {} times in {} epochs", i, state.counts[i],
                        options_.epochs));
    const AuditReport report = audit_run(run, {});
    check(report.passed() && report.complete && report.traced,
          "the audit fails: " + (report.fault_text.empty() ? "" : report.fault_text[0]));
    replayed_ += report.trace_replayed / options_.batch;
    check(!fs::exists(run / "state.bin.tmp"), "a temporary file is left");
  }

  static void check(bool condition, const std::string& what) {
    if (!condition) throw Error(ExitCode::kOther, "kill_count", what);
  }

  const JobOptions options_;
  const test::TempDir dir_;
  PositionRng rng_;
  uint64_t ledger_bytes_ = 0;
  Clock::time_point ledger_moved_ = Clock::now();
  uint64_t kills_ = 0, launchers_ = 0, jobs_ = 0, torn_ = 0, lives_ = 0, runs_ = 0, replayed_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  return run_program("kill_count", [&] {
    CLI::App app("Kills a job at random moments and counts the samples.", "kill_count");
    JobOptions o;
    app.add_option("--kills", o.kills, "SIGKILLs")->capture_default_str();
    app.add_option("--seed", o.seed, "of moments and victims")->capture_default_str();
    app.add_option("--samples", o.samples, "N")->capture_default_str();
    app.add_option("--batch", o.batch, "a multiple of 8")->capture_default_str();
    app.add_option("--epochs", o.epochs, "of each run")->capture_default_str();
    if (const auto code = parse_command_line(app, argc, argv)) return *code;
    fmt::print("{}\n", Driver(o).run().dump());
    return 0;
  });
}

// Chaos: real mpirun jobs of 2 to 4 ranks to which faults are done at random moments until they
// end; then model, optimizer, average, ledger and metrics are compared with those of a run that
// was left alone.
//   chaos --trials 300 --seed 1 [--jobs 3] [--verbose]
// One JSON line; exit 1 when a job hung or a bit differs. The same seed draws the same faults; the
// moments depend on the machine, and on how many trials run at a time.
#include "tests/fault/chaos.h"

#include <fmt/format.h>
#include <sys/prctl.h>

#include <CLI/CLI.hpp>
#include <map>

#include "core/command_line.h"
#include "core/program.h"
#include "tests/support/tiny_run.h"

namespace {
using namespace nf;
namespace fs = std::filesystem;

constexpr double kHangSeconds = 90;  // without a new line in metrics.jsonl

struct Tally {
  std::map<std::string, int> faults;
  int lives = 0, hangs = 0, differences = 0, ledgers = 0, unfinished = 0, orphans = 0;
  int at_fault() const { return hangs + orphans + unfinished + differences + ledgers; }
  Json json() const {
    return {{"starts", lives},
            {"faults", faults},
            {"hangs", hangs},
            {"orphans", orphans},
            {"runs_not_done", unfinished},
            {"differences", differences},
            {"audits_failed", ledgers}};
  }
  void add(const Json& other) {
    for (const auto& [name, count] : other["faults"].items()) faults[name] += count.get<int>();
    lives += other["starts"].get<int>();
    hangs += other["hangs"].get<int>();
    orphans += other["orphans"].get<int>();
    unfinished += other["runs_not_done"].get<int>();
    differences += other["differences"].get<int>();
    ledgers += other["audits_failed"].get<int>();
  }
};

struct Plan {
  int trials = 15, jobs = 1;
  uint64_t seed = 1;
  bool verbose = false;
};

class Chaos {
 public:
  Chaos(uint64_t seed, bool verbose) : seed_(seed), verbose_(verbose) {
    test::make_shapes_dataset(scratch_ / "data", 22, 20);
    std::ofstream(scratch_ / "empty.toml") << "# all keys by --set\n";
    calm_ = scratch_ / "calm";
    const auto o = test::run(test::mpirun(2, command(calm_)));
    if (o.code != 0) throw std::runtime_error("the calm run failed: " + o.err);
  }

  void trial(int number, Tally& tally);

 private:
  std::vector<std::string> command(const fs::path& run) const {
    return test::nf_train(
        (scratch_ / "empty.toml").string(), (scratch_ / "data").string(), run.string(),
        {"schedule.epochs=4", "batch.size=16", "checkpoint.every_steps=3", "evaluate.split=holdout",
         "evaluate.every_steps=16", "comm.heartbeat_seconds=2", "model.widths=[64,64,128,128]"});
  }
  bool live(const test::ChaosRun& run, PositionRng& rng, bool with_fault, Tally& tally);
  bool wait(test::Process& job, const fs::path& run, Tally& tally);
  void compare(int number, const fs::path& run, Tally& tally);

  test::TempDir scratch_;
  fs::path calm_;
  const uint64_t seed_;
  const bool verbose_;
};

// Steps and evaluations as they were logged, without what is measured.
std::vector<Json> figures(const fs::path& run) {
  std::vector<Json> out;
  for (const auto& line : read_jsonl(run / "metrics.jsonl")) {
    Json kept;
    for (const char* key : {"kind", "step", "position", "epoch", "loss", "top1", "top5",
                            "learning_rate", "grad_norm", "agc_clipped", "weights", "split"})
      if (line.contains(key)) kept[key] = line[key];
    if (kept["kind"] == "train" || kept["kind"] == "eval") out.push_back(kept);
  }
  return out;
}

// False: it hung, and was ended.
bool Chaos::wait(test::Process& job, const fs::path& run, Tally& tally) {
  const auto ranks = job.children();
  const auto alive = [&] {
    return std::any_of(ranks.begin(), ranks.end(), [](pid_t p) { return kill(p, 0) == 0; });
  };
  const auto written = [&] {
    std::error_code none;
    return fs::file_size(run / "metrics.jsonl", none);
  };
  auto size = written();
  for (double passed = 0; job.running(); passed += 0.01) {
    if (const auto now = written(); now != size) {
      size = now;
      passed = 0;
    }
    if (passed > kHangSeconds) {
      ++tally.hangs;
      fmt::print(stderr, "hang, the job said:\n{}\n", test::slurp(scratch_ / "err"));
      for (const pid_t p : ranks) kill(p, SIGKILL);
      job.signal(SIGKILL);
      job.wait();
      return false;
    }
    test::pause_ms(10);
  }
  for (double passed = 0; alive(); passed += 0.01) {  // ranks go a moment after their launcher
    if (passed > 15) {
      ++tally.orphans;
      for (const pid_t p : ranks) kill(p, SIGKILL);
      break;
    }
    test::pause_ms(10);
  }
  return true;
}

// One start of the job; true when it says that the run is done.
bool Chaos::live(const test::ChaosRun& run, PositionRng& rng, bool with_fault, Tally& tally) {
  ++tally.lives;
  auto argv = test::mpirun(2 + static_cast<int>(rng.below(3)), command(run.directory));
  const std::vector<std::string> environment = {
      "-x", std::string("LD_PRELOAD=") + NF_DISK_FAULTS,
      "-x", "NF_FULL_DISK_WHEN=" + run.disk_full.string(),
      "-x", "NF_FULL_DISK_UNDER=" + run.directory.string()};
  argv.insert(argv.begin() + 1, environment.begin(), environment.end());
  test::Process job(argv, scratch_ / "out", scratch_ / "err");
  if (with_fault) {
    // Mostly while it trains, sometimes while it starts.
    const auto before = test::slurp(run.directory / "metrics.jsonl").size();
    const double limit = rng.below(5) == 0 ? rng.uniform(0, 1500) : 20000;
    for (double passed = 0; passed < limit && job.running() &&
                            test::slurp(run.directory / "metrics.jsonl").size() <= before;
         passed += 5)
      test::pause_ms(5);
    if (limit == 20000) test::pause_ms(rng.uniform(0, 1200));
    const auto fault =
        static_cast<test::Fault>(rng.below(static_cast<uint64_t>(test::Fault::kCount)));
    if (job.running()) {
      ++tally.faults[test::name(fault)];
      if (verbose_) fmt::print(stderr, "  {}\n", test::name(fault));
      test::inflict(fault, job, run, rng);
    }
  }
  wait(job, run.directory, tally);
  return fs::exists(run.directory / "result.json");
}

void Chaos::compare(int number, const fs::path& run, Tally& tally) {
  const auto differ = [&](const std::string& what) {
    ++tally.differences;
    fmt::print(stderr, "trial {}: {} differs from the calm run\n", number, what);
  };
  for (const auto& file : test::state_files())
    if (test::slurp(test::latest(run) / file) != test::slurp(test::latest(calm_) / file))
      differ(file);
  if (figures(run) != figures(calm_)) differ("metrics.jsonl");
  if (test::slurp(run / "ledger.jsonl") != test::slurp(calm_ / "ledger.jsonl"))
    differ("ledger.jsonl");
  if (test::run({test::program("nf-audit").string(), "run", run.string()}).code != 0) {
    ++tally.ledgers;
    fmt::print(stderr, "trial {}: nf-audit run failed\n", number);
  }
}

void Chaos::trial(int number, Tally& tally) {
  PositionRng rng(seed_, Stream::kTest, static_cast<uint64_t>(number));
  const test::ChaosRun run{scratch_ / "run", scratch_ / "disk-is-full"};
  fs::remove_all(run.directory);
  if (verbose_) fmt::print(stderr, "trial {}\n", number);
  bool done = false;
  const int faults = 1 + static_cast<int>(rng.below(3));
  for (int life = 0; life < 12 && !done; ++life) done = live(run, rng, life < faults, tally);
  if (done) return compare(number, run.directory, tally);
  ++tally.unfinished;
  fmt::print(stderr, "trial {}: not done after 12 starts:\n{}\n", number,
             test::slurp(scratch_ / "err"));
}

// Every jobs-th trial from `first` on.
Tally some_trials(const Plan& plan, int first) {
  Chaos chaos(plan.seed, plan.verbose);
  Tally tally;
  int done = 0;
  for (int i = first; i < plan.trials; i += plan.jobs) {
    chaos.trial(i, tally);
    if (++done % 10 == 0)
      fmt::print(stderr, "{}{} runs, {} starts: {} at fault\n",
                 plan.jobs > 1 ? "job " + std::to_string(first) + ": " : "", done, tally.lives,
                 tally.at_fault());
  }
  return tally;
}

// Jobs are processes of their own: their tallies come back as files.
Tally all_trials(const Plan& plan) {
  if (plan.jobs == 1) return some_trials(plan, 0);
  const test::TempDir results;
  std::vector<pid_t> workers;
  for (int job = 0; job < plan.jobs; ++job) {
    const pid_t pid = fork();
    if (pid < 0) throw std::runtime_error("fork failed");
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGTERM);
      _exit(run_program("chaos", [&] {
        std::ofstream(results / std::to_string(job)) << some_trials(plan, job).json() << std::flush;
        return 0;
      }));
    }
    workers.push_back(pid);
  }
  Tally sum;
  for (int job = 0; job < plan.jobs; ++job) {
    int status = 0;
    waitpid(workers[static_cast<size_t>(job)], &status, 0);
    const std::string text = test::slurp(results / std::to_string(job));
    if (status != 0 || text.empty())
      throw std::runtime_error("job " + std::to_string(job) + " did not end its trials");
    sum.add(Json::parse(text));
  }
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chaos", [&] {
    CLI::App app("Faults at random moments of real jobs; the bits must not differ.", "chaos");
    Plan plan;
    app.add_option("--trials", plan.trials, "runs")->capture_default_str();
    app.add_option("--seed", plan.seed, "what is drawn")->capture_default_str();
    app.add_option("--jobs", plan.jobs, "trials at a time")
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    app.add_flag("--verbose", plan.verbose, "name each fault");
    if (const auto code = parse_command_line(app, argc, argv)) return *code;
    const auto begin = std::chrono::steady_clock::now();
    const Tally tally = all_trials(plan);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    Json result = {{"trials", plan.trials}, {"seed", plan.seed}, {"jobs", plan.jobs}};
    result.update(tally.json());
    result["seconds"] = took.count();
    fmt::print("{}\n", result.dump());
    return tally.at_fault() > 0 ? 1 : 0;
  });
}

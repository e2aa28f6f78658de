// Preempt and requeue, again and again, on a real Slurm: single jobs and array elements, on one and
// two nodes, through mpirun and srun, all pushed aside by a job of higher priority at a random
// moment. Exit code 0: no job ended before its result.json was there, every run has the bits of one
// never disturbed, logs and metrics are continuous. 2 cycles in the tests; ./dev slurm --cycles 20.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>

#include "core/rng.h"
#include "tests/slurm/slurm_runs.h"

namespace nf::test {
namespace {

struct Count {
  size_t cycles = 0, evicted = 0, restarts = 0, wrong = 0;
};

void say(const char* format, auto... values) {
  std::printf(format, values...);
  std::fflush(stdout);
}

std::vector<SlurmRun> submit_all(SlurmRuns& runs) {
  std::vector<SlurmRun> all;
  const auto add = [&](const std::vector<SlurmRun>& more) {
    all.insert(all.end(), more.begin(), more.end());
  };
  for (const char* launcher : {"mpirun", "srun"}) {
    const std::string l = launcher;
    add(runs.submit(l + "_1node", {"--ranks", "2", "--launcher", l}));
    add(runs.submit(l + "_2nodes", {"--nodes", "2", "--ranks", "2", "--launcher", l}));
    add(runs.submit(l + "_array", {"--array", "1-2", "--launcher", l}, {1, 2}));
  }
  return all;
}

// One cycle: every run that is left makes some steps, then the nodes are taken from it.
bool cycle(SlurmLab& lab, SlurmRuns& runs, const std::vector<SlurmRun>& all, PositionRng& random,
           Count& count) {
  std::map<std::string, int64_t> steps;
  for (const auto& run : all)
    if (!runs.is_over(run)) steps[run.name] = SlurmRuns::step(run);
  if (steps.empty()) return false;
  runs.wait(all, [&](const SlurmRun& run) { return SlurmRuns::step(run) > steps[run.name]; });
  std::this_thread::sleep_for(std::chrono::milliseconds(random.below(1500)));
  lab.release(lab.take());
  ++count.cycles;
  for (const auto& run : all) count.evicted += runs.is_over(run) ? 0 : 1;
  return true;
}

int run_cycles(size_t cycles, double epochs, uint64_t seed) {
  const auto begin = std::chrono::steady_clock::now();
  SlurmLab lab({});
  SlurmRuns runs(lab, epochs);
  PositionRng random(seed, Stream::kTest, 0);
  const std::vector<SlurmRun> all = submit_all(runs);
  Count count;
  while (count.cycles < cycles && cycle(lab, runs, all, random, count))
    say("cycle %zu: %zu evictions so far\n", count.cycles, count.evicted);
  runs.wait(all);
  for (const auto& run : all) {
    const size_t restarts = lab.ended().at(run.job).size() - 1;
    const std::string wrong = runs.differences(run);
    count.restarts += restarts;
    count.wrong += wrong.empty() ? 0 : 1;
    say("%-14s %3zu requeues  %s\n", run.name.c_str(), restarts,
        wrong.empty() ? "same bits" : wrong.c_str());
  }
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
  say("%zu cycles, %zu evictions, %zu requeues of %zu jobs in %.0f s; %zu jobs at fault\n",
      count.cycles, count.evicted, count.restarts, all.size(), passed.count(), count.wrong);
  if (count.cycles < cycles) say("error: the runs ended before %zu cycles\n", cycles);
  return count.wrong == 0 && count.cycles == cycles ? 0 : 1;
}

}  // namespace
}  // namespace nf::test

int main(int argc, char** argv) {
  CLI::App app("Preemptions of real Slurm jobs; see the head of slurm_cycles.cpp.", "slurm_cycles");
  size_t cycles = 2;
  double epochs = 0;
  uint64_t seed = 1;
  app.add_option("--cycles", cycles, "how often everything is preempted")->capture_default_str();
  app.add_option("--epochs", epochs, "length of the runs; default: enough for the cycles");
  app.add_option("--seed", seed, "of the moments of preemption")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (epochs <= 0) epochs = 1.5 + 2 * static_cast<double>(cycles);
  try {
    return nf::test::run_cycles(cycles, epochs, seed);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: slurm_cycles: %s\n", e.what());
    return 1;
  }
}

// How long nf-audit run takes to prove a run of a million steps from its ledger, every digest of
// the smaller one recomputed; and what one answer of nf-audit where costs.
//   audit_speed [--steps 1000000] [--folder /tmp/nf-audit-speed]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "core/command_line.h"
#include "core/error.h"
#include "core/program.h"
#include "data_pipeline/audit_run.h"

namespace {

using namespace nf;
using namespace nf::data;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Of the process: what the same work takes on an idle machine, it has one thread.
double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

void write_run(const fs::path& run, uint64_t steps, uint64_t batch) {
  fs::create_directories(run);
  RunOrder order;
  order.sampler = {.samples = 1'281'167, .seed = 1};
  order.batch_size = batch;
  order.micro_batches = 1;
  order.end_position = steps * batch;
  write_run_order(run, order);
  const Sampler sampler(order.sampler);
  std::vector<uint64_t> ids(batch);
  std::ofstream out(run / "ledger.jsonl", std::ios::binary);
  for (uint64_t step = 0; step < steps; ++step) {
    sampler.fill(step * batch, ids);
    out << to_json(LedgerLine{step + 1, step * batch, (step + 1) * batch,
                              batch_digest(step * batch, ids)})
               .dump()
        << "\n";
  }
}

Json measure(const fs::path& folder, uint64_t steps, uint64_t batch) {
  const fs::path run = folder / fmt::format("{}x{}", steps, batch);
  if (!fs::exists(run / "ledger.jsonl")) write_run(run, steps, batch);
  std::vector<double> seconds, cpu;
  AuditReport report;
  for (int r = 0; r < 5; ++r) {
    const auto begin = Clock::now();
    const double cpu_begin = cpu_seconds();
    report = audit_run(run, {});
    seconds.push_back(since(begin));
    cpu.push_back(cpu_seconds() - cpu_begin);
    if (!report.passed() || !report.complete)
      throw Error(ExitCode::kData, run.string(), "the audit found faults in a good ledger");
  }
  std::sort(seconds.begin(), seconds.end());
  std::sort(cpu.begin(), cpu.end());
  return {{"steps", steps},
          {"batch", batch},
          {"ledger_bytes", fs::file_size(run / "ledger.jsonl")},
          {"digests_checked", report.digests_checked},
          {"cpu_s", {{"median", cpu[2]}, {"min", cpu[0]}, {"max", cpu[4]}}},
          {"wall_s", {{"median", seconds[2]}, {"min", seconds[0]}, {"max", seconds[4]}}}};
}

double where_ns() {
  const EpochOrder order({.samples = 4'000'000'000, .seed = 1}, 7);
  uint64_t sum = 0;
  constexpr uint64_t kCount = 2'000'000;
  const double begin = cpu_seconds();
  for (uint64_t i = 0; i < kCount; ++i) sum += order.rank_of(i * 1999);
  const double ns = 1e9 * (cpu_seconds() - begin) / kCount;
  if (sum == 0) throw Error(ExitCode::kOther, "audit_speed", "impossible");
  return ns;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("audit_speed", [&] {
    CLI::App app("Speed of nf-audit run and where.", "audit_speed");
    uint64_t steps = 1'000'000;
    std::string folder = "/tmp/nf-audit-speed";
    app.add_option("--steps", steps, "lines of the ledger")->capture_default_str();
    app.add_option("--folder", folder, "where the runs are made")->capture_default_str();
    if (const auto code = parse_command_line(app, argc, argv)) return *code;
    fmt::print("{}\n", Json{{"program", "audit_speed"},
                            {"runs", {measure(folder, steps, 64), measure(folder, steps, 1024)}},
                            {"where_ns", where_ns()}}
                           .dump());
    return 0;
  });
}

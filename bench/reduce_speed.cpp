// Time of one gradient sum over the ranks of an mpirun job: the exact tree in shared memory, the
// exact tree by messages, the MPI library's own all-reduce; interleaved in one run.
//   mpirun -np 2 --bind-to none reduce_speed [--mib 64] [--rounds 30]
// One JSON line from rank 0: medians and ranges in ms, ratios of medians to MPI_Allreduce.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <map>

#include "bench/measure.h"
#include "core/command_line.h"
#include "core/jsonl.h"
#include "core/program.h"
#include "trainer/comm/grad_reducer.h"
#include "trainer/comm/mpi.h"

namespace {
using namespace nf;
using bench::cpu_seconds;
using bench::median;

struct Way {
  const char* name;
  train::ReducerOptions options;
};

}  // namespace

int main(int argc, char** argv) {
  return run_program("reduce_speed", [&] {
    CLI::App app("Time of a gradient sum over ranks.", "reduce_speed");
    int64_t mib = 64, rounds = 30;
    app.add_option("--mib", mib, "size of the gradient")->capture_default_str();
    app.add_option("--rounds", rounds, "sums of each kind")->capture_default_str();
    if (const auto code = parse_command_line(app, argc, argv)) return *code;
    train::MpiSession session(&argc, &argv, 60);
    train::Communicator& comm = session.communicator();
    const auto v = static_cast<uint64_t>(comm.size());
    const size_t elements = static_cast<size_t>(mib) << 18;
    using train::Reduction;
    const std::vector<Way> ways = {{"exact_shared", {}},
                                   {"exact_messages", {.shared_memory = false}},
                                   {"mpi_allreduce", {.reduction = Reduction::kFast}}};
    std::vector<std::unique_ptr<train::GradReducer>> reducers;
    for (const Way& way : ways)
      reducers.push_back(std::make_unique<train::GradReducer>(comm, v, elements, way.options));
    std::map<std::string, std::vector<double>> wall, cpu;
    for (int64_t round = 0; round < rounds + 2; ++round)
      for (size_t w = 0; w < ways.size(); ++w) {
        train::GradReducer& reducer = *reducers[w];
        const auto buffer = reducer.buffer();
        std::fill(buffer.begin(), buffer.end(), 1.0f);  // fills the cache alike for all
        comm.barrier();
        const auto begin = std::chrono::steady_clock::now();
        const double cpu_begin = cpu_seconds();
        reducer.add(static_cast<uint64_t>(comm.rank()));
        const auto sum = reducer.finish();
        const std::chrono::duration<double, std::milli> took =
            std::chrono::steady_clock::now() - begin;
        if (sum[elements / 2] != static_cast<float>(v)) throw std::runtime_error("wrong sum");
        if (round < 2) continue;  // warm-up: pages are touched for the first time
        wall[ways[w].name].push_back(took.count());
        cpu[ways[w].name].push_back(1e3 * (cpu_seconds() - cpu_begin));
      }
    if (comm.rank() != 0) return 0;
    Json out = {{"ranks", comm.size()}, {"mib", mib}, {"rounds", rounds}};
    for (auto& [name, times] : wall) {
      std::sort(times.begin(), times.end());
      out[name] = {{"ms", median(times)},
                   {"min", times.front()},
                   {"max", times.back()},
                   {"cpu_ms", median(cpu[name])},
                   {"ratio_to_mpi_allreduce", median(times) / median(wall["mpi_allreduce"])}};
    }
    fmt::print("{}\n", out.dump());
    return 0;
  });
}

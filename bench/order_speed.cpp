// What the order of samples costs: nanoseconds per index one by one, in batches and backwards;
// restoring a position; memory; bytes of state. In CPU time of the thread. No peer is linked:
// theirs are Python packages, run beside this program by its one JSON line.
//   order_speed [--samples 4000000000] [--rounds 9]
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <functional>
#include <map>

#include "core/command_line.h"
#include "core/jsonl.h"
#include "core/process_memory.h"
#include "core/program.h"
#include "core/rng.h"
#include "data_pipeline/sampler.h"

namespace {

using namespace nf;
using namespace nf::data;

uint64_t kept = 0;  // results go here, so that no loop is optimised away

// Of this thread's CPU time: other programs on the machine do not count.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double seconds_of(const std::function<void()>& body) {
  const double begin = thread_seconds();
  body();
  return thread_seconds() - begin;
}

double resident_mib() { return resident_bytes() / (1 << 20); }

class Table {
 public:
  void take(const std::string& name, double value) { values_[name].push_back(value); }
  void print_into(Json& out) const {
    for (const auto& [name, values] : values_) {
      auto v = values;
      std::sort(v.begin(), v.end());
      const auto round = [](double x) { return std::round(x * 1000) / 1000; };
      out[name] = {
          {"median", round(v[v.size() / 2])}, {"min", round(v[0])}, {"max", round(v.back())}};
    }
  }
  double median(const std::string& name) const {
    auto v = values_.at(name);
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
  }

 private:
  std::map<std::string, std::vector<double>> values_;
};

void measure_order(const SamplerOptions& options, const std::string& prefix, Table& table) {
  const uint64_t count = std::min<uint64_t>(1 << 20, options.samples / 4096 * 4096);
  const EpochOrder order(options, 3);
  const Sampler sampler(options);
  const uint64_t begin = std::min(options.samples / 3, options.samples - count);
  std::vector<uint64_t> ids(4096);
  const auto per_index = [&](double seconds) { return 1e9 * seconds / static_cast<double>(count); };
  table.take(prefix + "scalar_ns", per_index(seconds_of([&] {
               for (uint64_t i = 0; i < count; ++i) kept += order.at(begin + i);
             })));
  table.take(prefix + "batch_ns", per_index(seconds_of([&] {
               for (uint64_t i = 0; i < count; i += ids.size()) {
                 order.fill(begin + i, ids);
                 kept += ids[i % ids.size()];
               }
             })));
  table.take(prefix + "inverse_ns", per_index(seconds_of([&] {
               for (uint64_t i = 0; i < count; ++i) kept += order.rank_of(begin + i);
             })));
  table.take(prefix + "sampler_at_ns", per_index(seconds_of([&] {
               for (uint64_t i = 0; i < count; ++i) kept += sampler.at(begin + i).sample;
             })));
  // A process that has just started and knows one number: everything from the options on.
  const auto restore = [&](uint64_t position) {
    return 1e6 * seconds_of([&] {
             const Sampler fresh(options);
             fresh.fill(position, ids);
             kept += ids[0];
           });
  };
  table.take(prefix + "restore_first_us", restore(0));
  table.take(prefix + "restore_last_us", restore(100 * options.samples - ids.size()));
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("order_speed", [&] {
    CLI::App app("Cost of the order of samples.", "order_speed");
    uint64_t samples = 4'000'000'000;
    int rounds = 9;
    app.add_option("--samples", samples, "N, at least 4096")
        ->check(CLI::Range(uint64_t{4096}, uint64_t{1} << 50))
        ->capture_default_str();
    app.add_option("--rounds", rounds, "rounds")->capture_default_str();
    if (const auto code = parse_command_line(app, argc, argv)) return *code;
    Table table;
    const double before = resident_mib();
    double whole = 0;
    for (int r = 0; r < rounds; ++r) {
      for (const Shuffle shuffle : {Shuffle::kGlobal, Shuffle::kWindowed}) {
        measure_order({.samples = samples, .seed = static_cast<uint64_t>(r), .shuffle = shuffle},
                      shuffle == Shuffle::kGlobal ? "" : "windowed_", table);
      }
    }
    const double growth = resident_mib() - before;
    const uint64_t limit = std::min<uint64_t>(samples, 10'000'000);
    std::vector<uint64_t> block(65536);
    const EpochOrder order({.samples = samples, .seed = 1}, 0);
    whole = seconds_of([&] {
      for (uint64_t i = 0; i < limit; i += block.size()) {
        const auto part = std::span(block).first(std::min<uint64_t>(block.size(), limit - i));
        order.fill(i, part);
        kept += part[0];
      }
    });
    // What a checkpoint must hold of the data's state; seed and fingerprint say which run it is.
    const std::string state =
        Json{{"position", samples * 20}, {"seed", 1}, {"fingerprint", std::string(64, 'f')}}.dump();
    Json out = {{"program", "order_speed"},
                {"n", samples},
                {"seconds", whole},
                {"indices", limit},
                {"ns_per_index", 1e9 * whole / static_cast<double>(limit)},
                {"peak_mib", growth},
                {"state_bytes", state.size()},
                {"check", kept % 10}};
    table.print_into(out);
    fmt::print("{}\n", out.dump());
    return 0;
  });
}

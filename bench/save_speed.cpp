// Seconds to commit and to load a checkpoint by its size: the copy that training waits for, the
// save with its fsyncs (in the background), and loading with every checksum.
//   save_speed --folder /scratch/x [--mib 16,64,256] [--rounds 5]
// One JSON line: medians per size.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>

#include "bench/measure.h"
#include "core/command_line.h"
#include "core/jsonl.h"
#include "core/program.h"
#include "trainer/checkpoint/checkpoint.h"

namespace {
using namespace nf;
using bench::median;

template <class Work>
double seconds(Work work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Weights, momentum and average of equal size, in tensors of 4 MiB and one that is left.
train::Snapshot snapshot_of(int64_t mib, uint64_t step) {
  train::Snapshot s;
  s.state.step = step;
  const auto fill = [](std::vector<train::NamedTensor>& to, int64_t elements) {
    for (int64_t i = 0; elements > 0; ++i) {
      const int64_t n = std::min<int64_t>(elements, int64_t{1} << 20);
      to.push_back({"tensor" + std::to_string(i), at::rand({n}, at::kFloat)});
      elements -= n;
    }
  };
  const int64_t each = (mib << 18) / 3;
  fill(s.model, each);
  fill(s.optimizer, each);
  fill(s.ema, each);
  return s;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("save_speed", [&] {
    CLI::App app("Time of a checkpoint by its size.", "save_speed");
    std::string folder;
    std::vector<int64_t> sizes = {16, 64, 256};
    int rounds = 5;
    app.add_option("--folder", folder, "where to write")->required();
    app.add_option("--mib", sizes, "sizes of the state")->delimiter(',')->capture_default_str();
    app.add_option("--rounds", rounds, "of each size")->capture_default_str();
    if (const auto code = parse_command_line(app, argc, argv)) return *code;
    Json out = Json::array();
    for (const int64_t mib : sizes) {
      const train::Snapshot live = snapshot_of(mib, 1);
      std::vector<double> copy, save, load;
      for (int i = 0; i < rounds; ++i) {
        train::Snapshot s;
        copy.push_back(seconds([&] {
          s = live;
          for (auto* part : {&s.model, &s.optimizer, &s.ema})
            for (auto& tensor : *part) tensor.tensor = tensor.tensor.clone();
        }));
        save.push_back(seconds([&] { train::save_checkpoint(folder, s); }));
        load.push_back(
            seconds([&] { train::load_checkpoint(train::checkpoint_path(folder, s.state.step)); }));
      }
      out.push_back({{"mib", mib},
                     {"copy_s", median(copy)},
                     {"save_s", median(save)},
                     {"load_s", median(load)}});
    }
    std::filesystem::remove_all(folder);
    fmt::print("{}\n", out.dump());
    return 0;
  });
}

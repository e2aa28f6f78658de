// From exec to the first batch of 256 images, for a data set of hundreds of thousands of shards:
// the program runs itself anew and takes the time until the child says that it holds the batch.
//   first_batch [--shards 440000] [--side 224] [--rounds 7]
// dataset.json names every shard; on the disk are those that the first batches read.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "bench/synthetic_set.h"
#include "core/command_line.h"
#include "core/jsonl.h"
#include "core/program.h"
#include "data_pipeline/dataset_index.h"
#include "data_pipeline/loader.h"

namespace {

using namespace nf;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string folder = "/tmp/nf-first-batch";
  uint64_t shards = 440'000, batch = 256;
  int side = 224, workers = 2, rounds = 7;
  bool child = false;
};

data::SamplerOptions order_of(const Options& o) { return {.samples = o.shards, .seed = 1}; }

void prepare(const Options& o) {
  if (data::has_dataset_index(o.folder)) return;
  std::vector<uint64_t> ids(2 * o.batch);
  data::Sampler(order_of(o)).fill(0, ids);
  const std::set<uint64_t> read(ids.begin(), ids.end());
  auto jpeg = bench::synthetic_jpeg(o.side, 1);
  bench::write_synthetic_set({o.folder, o.shards, 1, [&](uint64_t) { return jpeg; },
                              [&](uint64_t shard) { return read.count(shard) > 0; }});
}

void child(const Options& o) {
  const data::ShardDataset set(o.folder, "train");
  const data::Sampler sampler(order_of(o));
  const data::TrainPlan plan{o.batch, 1, uint64_t{1} << 40, 0, 1};
  data::AugmentOptions augment;
  data::Loader loader(set, sampler, plan.plan(), augment, 1, {o.workers, 1});
  const auto batch = loader.next();
  fmt::print("{}\n", batch->count - static_cast<int64_t>(batch->bad.size()));
}

struct Start {
  double wall, cpu;  // seconds to the first batch; CPU seconds of the whole child
};

Start one_start(const Options& o, const char* self) {
  int ends[2];
  if (::pipe(ends) != 0) throw Error(ExitCode::kOther, "first_batch", "no pipe");
  const auto begin = Clock::now();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    const std::string shards = std::to_string(o.shards), batch = std::to_string(o.batch),
                      workers = std::to_string(o.workers);
    ::execl(self, self, "--child", "--folder", o.folder.c_str(), "--shards", shards.c_str(),
            "--batch", batch.c_str(), "--workers", workers.c_str(), nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  char text[32] = {};
  const ssize_t got = ::read(ends[0], text, sizeof text - 1);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  ::close(ends[0]);
  rusage used{};
  ::wait4(pid, nullptr, 0, &used);
  if (got <= 0 || std::stoul(text) != o.batch)
    throw Error(ExitCode::kData, "first_batch", "the child did not give a whole batch");
  const auto in_seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return {seconds, in_seconds(used.ru_utime) + in_seconds(used.ru_stime)};
}

Json spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {{"median", values[values.size() / 2]}, {"min", values.front()}, {"max", values.back()}};
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("first_batch", [&] {
    CLI::App app("Seconds from exec to the first batch.", "first_batch");
    Options o;
    app.add_option("--folder", o.folder, "where the data set is made")->capture_default_str();
    app.add_option("--shards", o.shards, "shards, of one sample each")->capture_default_str();
    app.add_option("--batch", o.batch, "images")->capture_default_str();
    app.add_option("--side", o.side, "pixels a side of the stored images")->capture_default_str();
    app.add_option("--workers", o.workers, "loader threads")->capture_default_str();
    app.add_option("--rounds", o.rounds, "starts")->capture_default_str();
    app.add_flag("--child", o.child)->group("");
    if (const auto code = parse_command_line(app, argc, argv)) return *code;
    if (o.child) {
      child(o);
      return 0;
    }
    prepare(o);
    std::vector<double> wall, cpu;
    for (int r = 0; r < o.rounds; ++r) {
      const Start start = one_start(o, argv[0]);
      wall.push_back(start.wall);
      cpu.push_back(start.cpu);
    }
    const auto index = std::filesystem::path(o.folder) / data::kDatasetFile;
    fmt::print("{}\n", Json{{"program", "first_batch"},
                            {"shards", o.shards},
                            {"index_bytes", std::filesystem::file_size(index)},
                            {"batch", o.batch},
                            {"wall_s", spread(wall)},
                            {"cpu_s", spread(cpu)}}
                           .dump());
    return 0;
  });
}

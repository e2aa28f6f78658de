// What reading a sample costs: the data set's reader (with and without its CRC32C; copied and
// mapped, always with it), a bare pread of the same bytes, and H5Dread, interleaved in one run; one
// thread and two; one shard file, and random reads over more shards than may be open; and the first
// pass over a shard, when a map's pages are not in the process yet. Warm page cache; --cold
// measures read-ahead.
//   read_speed [--folder /tmp/read_speed] [--bytes 110000] [--shards 2000] [--rounds 7]
// One JSON line: microseconds of thread CPU time per sample, medians (least to most) of rounds, and
// wall time.
#include <fcntl.h>
#include <fmt/format.h>
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "bench/synthetic_set.h"
#include "core/atomic_file.h"
#include "core/command_line.h"
#include "core/jsonl.h"
#include "core/program.h"
#include "core/rng.h"
#include "data_pipeline/dataset_index.h"
#include "data_pipeline/shard_dataset.h"
#include "data_pipeline/shard_format.h"

namespace {

using namespace nf;
using Clock = std::chrono::steady_clock;

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Microseconds a read: CPU time of a thread, and wall time.
struct Cost {
  double cpu, wall;
};

// `threads` threads each run body(thread), which makes `reads` reads.
Cost run_threads(int threads, uint64_t reads, const std::function<void(int)>& body) {
  std::vector<double> cpu(static_cast<size_t>(threads));
  const auto timed = [&](int t) {
    const double begin = thread_seconds();
    body(t);
    cpu[static_cast<size_t>(t)] = thread_seconds() - begin;
  };
  const auto begin = Clock::now();
  {
    std::vector<std::jthread> running;
    for (int t = 1; t < threads; ++t) running.emplace_back([&, t] { timed(t); });
    timed(0);
  }
  const double wall = std::chrono::duration<double>(Clock::now() - begin).count();
  double sum = 0;
  for (const double c : cpu) sum += c;
  const double scale = 1e6 / static_cast<double>(reads);
  return {scale * sum / threads, scale * wall};
}

struct Series {
  std::vector<double> cpu, wall;
  static double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }
  Json to_json() const {
    const auto [low, high] = std::minmax_element(cpu.begin(), cpu.end());
    const auto round = [](double v) { return std::round(v * 100) / 100; };
    return {{"cpu_us", round(median(cpu))},
            {"min", round(*low)},
            {"max", round(*high)},
            {"wall_us", round(median(wall))}};
  }
};

uint64_t sample_at(uint64_t seed, uint64_t k, uint64_t samples) {
  return PositionRng(seed, Stream::kTest, k).below(samples);
}

// Reads `reads` random samples on each of `threads` threads.
Cost library(const data::ShardDataset& set, bool check, int threads, uint64_t reads,
             uint64_t seed) {
  const Cost cost = run_threads(threads, reads, [&](int t) {
    data::SampleData sample;
    for (uint64_t k = 0; k < reads; ++k) {
      const uint64_t i = sample_at(seed + static_cast<uint64_t>(t), k, set.size());
      const auto fault = check ? set.read(i, sample) : set.read_unchecked(i, sample);
      if (!fault.ok()) throw Error(ExitCode::kData, "read_speed", fault.reason);
    }
  });
  return cost;
}

// The same as training uses a map: checked, and asked at the end whether it may have changed.
Cost mapped(const data::ShardDataset& set, int threads, uint64_t reads, uint64_t seed) {
  return run_threads(threads, reads, [&](int t) {
    data::SampleView view;
    for (uint64_t k = 0; k < reads; ++k) {
      const uint64_t i = sample_at(seed + static_cast<uint64_t>(t), k, set.size());
      const auto fault = set.view(i, view);
      if (!fault.ok() || set.is_doubtful(view))
        throw Error(ExitCode::kData, "read_speed", "damaged: " + fault.reason);
      view.release();
    }
  });
}

// The k-th sample of a pass that takes each once, scattered.
uint64_t scattered(uint64_t k, uint64_t samples) { return k * 617 % samples; }

// Every sample of a data set that was opened just now, once, in a scattered order.
Cost first_pass(const std::filesystem::path& folder, bool map) {
  const data::ShardDataset set(folder, "train", {.mapped = map});
  return run_threads(1, set.size(), [&](int) {
    data::SampleView view;
    for (uint64_t k = 0; k < set.size(); ++k) {
      if (!set.view(scattered(k, set.size()), view).ok() || set.is_doubtful(view))
        throw Error(ExitCode::kData, "read_speed", "a sample is damaged");
      view.release();
    }
  });
}

Cost bare_pread(const std::filesystem::path& file, uint64_t at, uint64_t bytes, uint64_t samples,
                int threads, uint64_t reads, uint64_t seed) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw_io_error(file, "cannot open", errno);
  const Cost cost = run_threads(threads, reads, [&](int t) {
    std::vector<uint8_t> to(bytes);
    for (uint64_t k = 0; k < reads; ++k) {
      const uint64_t i = sample_at(seed + static_cast<uint64_t>(t), k, samples);
      if (::pread(fd, to.data(), bytes, static_cast<off_t>(at + i * bytes)) !=
          static_cast<ssize_t>(bytes))
        throw_io_error(file, "cannot read", errno);
    }
  });
  ::close(fd);
  return cost;
}

// The library's way: one lock, because distributions build it without thread safety.
Cost h5dread(const std::filesystem::path& file, uint64_t bytes, uint64_t samples, int threads,
             uint64_t reads, uint64_t seed) {
  const std::lock_guard outer(data::hdf5_mutex());
  const hid_t h5 = H5Fopen(file.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t data = H5Dopen2(h5, "/data", H5P_DEFAULT), space = H5Dget_space(data);
  const hsize_t extent = bytes;
  const hid_t memory = H5Screate_simple(1, &extent, nullptr);
  std::mutex lock;
  const Cost cost = run_threads(threads, reads, [&](int t) {
    std::vector<uint8_t> to(bytes);
    for (uint64_t k = 0; k < reads; ++k) {
      const hsize_t start = sample_at(seed + static_cast<uint64_t>(t), k, samples) * bytes;
      const std::lock_guard one(lock);
      H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, nullptr, &extent, nullptr);
      if (H5Dread(data, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, to.data()) < 0)
        throw Error(ExitCode::kOther, file.string(), "H5Dread failed");
    }
  });
  H5Sclose(memory), H5Sclose(space), H5Dclose(data), H5Fclose(h5);
  return cost;
}

void drop_from_cache(const std::filesystem::path& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const int fd = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ::close(fd);
  }
}

// One pass over a shard that is not in the page cache, each sample hinted `depth` samples ahead; 0:
// not hinted.
Cost cold(const std::filesystem::path& folder, bool map, uint64_t depth) {
  drop_from_cache(folder);
  const data::ShardDataset set(folder, "train", {.mapped = map});
  return run_threads(1, set.size(), [&](int) {
    data::SampleView view;
    for (uint64_t k = 0; k < set.size(); ++k) {
      if (depth > 0) set.will_need(scattered(k + depth, set.size()));
      if (!set.view(scattered(k, set.size()), view).ok() || set.is_doubtful(view))
        throw Error(ExitCode::kData, "read_speed", "a sample is damaged");
      view.release();
    }
  });
}

struct Options {
  std::filesystem::path folder = "/tmp/read_speed";
  uint64_t bytes = 110'000, shards = 2000, reads = 4000;
  int rounds = 7;
  bool cold = false;
};

void prepare(const Options& o) {
  std::vector<uint8_t> noise(o.bytes);
  PositionRng rng(1, Stream::kTest, 0);
  for (uint8_t& b : noise) b = static_cast<uint8_t>(rng.next_u32());
  const auto bytes = [&](uint64_t) { return noise; };
  if (!data::has_dataset_index(o.folder / "one"))
    bench::write_synthetic_set({o.folder / "one", 1000, 1000, bytes, {}});
  if (o.cold && !data::has_dataset_index(o.folder / "cold"))
    bench::write_synthetic_set({o.folder / "cold", 1000, 1000, bytes, {}});
  if (!data::has_dataset_index(o.folder / "many"))
    bench::write_synthetic_set({o.folder / "many", 4 * o.shards, 4, bytes, {}});
}

Json measure(const Options& o) {
  const data::ShardDataset one(o.folder / "one", "train"), many(o.folder / "many", "train"),
      one_mapped(o.folder / "one", "train", {.mapped = true}),
      many_mapped(o.folder / "many", "train", {.mapped = true});
  const auto file = o.folder / "one" / data::shard_file_name("train", 0);
  const uint64_t at = data::read_shard_layout(file).data_at;
  std::map<std::string, Series> series;
  for (int r = -1; r < o.rounds; ++r) {  // the first round warms the caches
    const int seed = 10 * (r + 2);
    const auto take = [&](const std::string& name, const Cost& cost) {
      if (r < 0) return;
      series[name].cpu.push_back(cost.cpu);
      series[name].wall.push_back(cost.wall);
    };
    for (const int t : {1, 2}) {
      const std::string suffix = fmt::format("_{}t", t);
      take("pread" + suffix, bare_pread(file, at, o.bytes, one.size(), t, o.reads, seed));
      take("read" + suffix, library(one, true, t, o.reads, seed));
      take("read_no_crc" + suffix, library(one, false, t, o.reads, seed));
      take("h5dread" + suffix, h5dread(file, o.bytes, one.size(), t, o.reads, seed));
      take("mapped" + suffix, mapped(one_mapped, t, o.reads, seed));
      take("many_shards" + suffix, library(many, true, t, o.reads, seed));
      take("many_shards_mapped" + suffix, mapped(many_mapped, t, o.reads, seed));
    }
    take("first_pass_read", first_pass(o.folder / "one", false));
    take("first_pass_mapped", first_pass(o.folder / "one", true));
    if (o.cold) {
      for (const uint64_t depth : {0, 4, 16, 64})
        for (const bool map : {false, true})
          take(fmt::format("cold{}_ahead_{}", map ? "_mapped" : "", depth),
               cold(o.folder / "cold", map, depth));
    }
  }
  Json out = {{"program", "read_speed"}, {"bytes", o.bytes}, {"reads", o.reads}};
  for (const auto& [name, values] : series) out[name] = values.to_json();
  const auto ratio = [](const std::vector<double>& a, const std::vector<double>& b) {
    return std::round(100 * Series::median(a) / Series::median(b)) / 100;
  };
  out["mapped_over_pread"] = ratio(series["mapped_1t"].cpu, series["pread_1t"].cpu);
  out["read_over_pread"] = ratio(series["read_1t"].cpu, series["pread_1t"].cpu);
  // 2 when two threads on two free cores make twice the reads of one.
  out["two_threads_speedup"] = 2 * ratio(series["read_1t"].wall, series["read_2t"].wall);
  out["two_threads_speedup_h5dread"] =
      2 * ratio(series["h5dread_1t"].wall, series["h5dread_2t"].wall);
  out["open_files"] = std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                                    std::filesystem::directory_iterator());
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("read_speed", [&] {
    CLI::App app("Cost of reading one sample.", "read_speed");
    Options o;
    app.add_option("--folder", o.folder, "where the data sets are made")->capture_default_str();
    app.add_option("--bytes", o.bytes, "bytes of a sample")->capture_default_str();
    app.add_option("--shards", o.shards, "shard files of the larger set")->capture_default_str();
    app.add_option("--reads", o.reads, "reads a thread and round")->capture_default_str();
    app.add_option("--rounds", o.rounds, "rounds")->capture_default_str();
    app.add_flag("--cold", o.cold, "also with the page cache dropped, by depth of read-ahead");
    if (const auto code = parse_command_line(app, argc, argv)) return *code;
    prepare(o);
    fmt::print("{}\n", measure(o).dump());
    return 0;
  });
}

// Does anything grow? Synthetic batches by the million, random seeks, loaders made and destroyed:
// resident memory, file descriptors and threads before and after each part.
//   soak [--batches 1000000] [--seeks 10000] [--loaders 1000]
// One JSON line; exit code 1 when descriptors or threads are left over, or memory grows by more
// than a byte for each batch.
#include <fmt/format.h>

#include <chrono>
#include <filesystem>

#include "bench/synthetic_set.h"
#include "core/command_line.h"
#include "core/jsonl.h"
#include "core/process_memory.h"
#include "core/program.h"
#include "core/rng.h"
#include "data_pipeline/loader.h"

namespace {

using namespace nf;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct Usage {
  int64_t resident = 0;  // bytes
  int64_t files = 0, threads = 0;
};

int64_t entries(const char* folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

Usage usage_now() {
  Usage u;
  u.resident = static_cast<int64_t>(resident_bytes());
  u.files = entries("/proc/self/fd");
  u.threads = entries("/proc/self/task");
  return u;
}

struct Options {
  uint64_t batches = 1'000'000, seeks = 10'000, loaders = 1000;
  std::string folder = "/tmp/nf-soak";
};

class Soak {
 public:
  explicit Soak(const Options& o) : o_(o), set_(o.folder, "train") {
    augment_.image_size = 8;
    augment_.mix = {0.2, true};
    augment_.randaugment = {1, 5};
  }

  Json run() {
    part("warm_up", std::min<uint64_t>(o_.batches / 10, 20'000), [&] { take_batches(20'000); });
    part("batches", o_.batches, [&] { take_batches(o_.batches); });
    part("seeks", o_.seeks, [&] { seek(); });
    part("loaders", o_.loaders, [&] { make_loaders(); });
    report_["verdict"] = flat_ ? "flat" : "grows";
    return report_;
  }
  bool flat() const { return flat_; }

 private:
  data::Loader make(int workers) {
    return {set_, sampler_, plan_.plan(), augment_, 1, {workers, 4}};
  }

  void take_batches(uint64_t count) {
    data::Loader loader = make(2);
    for (uint64_t k = 0; k < count; ++k) {
      auto batch = loader.next();
      loader.recycle(std::move(*batch));
    }
  }
  void seek() {
    data::Loader loader = make(2);
    PositionRng rng(1, Stream::kTest, 0);
    for (uint64_t k = 0; k < o_.seeks; ++k) {
      loader.seek(rng.below(1'000'000'000));
      if (k % 4 == 0) loader.next();
    }
  }
  void make_loaders() {
    for (uint64_t k = 0; k < o_.loaders; ++k) {
      const data::ShardDataset own(o_.folder, "train");
      data::Loader loader(own, sampler_, plan_.plan(), augment_, 1, {static_cast<int>(k % 9), 4});
      loader.seek(k);
      if (k % 2 == 0) loader.next();
    }
  }

  template <class Body>
  void part(const char* name, uint64_t count, const Body& body) {
    const Usage before = usage_now();
    const auto begin = Clock::now();
    body();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    const Usage after = usage_now();
    const auto grown = after.resident - before.resident;
    report_[name] = {{"count", count},
                     {"seconds", seconds},
                     {"resident_mib", static_cast<double>(after.resident) / (1 << 20)},
                     {"grown_kib", grown / 1024},
                     {"files", after.files},
                     {"threads", after.threads}};
    if (std::string(name) == "warm_up") {
      start_ = after;
      return;
    }
    // Open shards of the kept data set may come and go within their cap of 64.
    const bool files = after.files <= start_.files + 64, threads = after.threads == start_.threads;
    flat_ = flat_ && files && threads && grown <= static_cast<int64_t>(o_.batches) + (4 << 20);
  }

  const Options o_;
  const data::ShardDataset set_;
  const data::Sampler sampler_{{.samples = set_.size(), .seed = 1}};
  const data::TrainPlan plan_{2, 1, uint64_t{1} << 40, 0, 1};
  data::AugmentOptions augment_;
  Usage start_;
  bool flat_ = true;
  Json report_ = {{"program", "soak"}};
};

}  // namespace

int main(int argc, char** argv) {
  return run_program("soak", [&] {
    CLI::App app("Memory, descriptors and threads over many batches.", "soak");
    Options o;
    app.add_option("--batches", o.batches, "batches of 2 images of 8 x 8")->capture_default_str();
    app.add_option("--seeks", o.seeks, "random seeks")->capture_default_str();
    app.add_option("--loaders", o.loaders, "loaders made and destroyed")->capture_default_str();
    app.add_option("--folder", o.folder, "where the data set is made")->capture_default_str();
    if (const auto code = parse_command_line(app, argc, argv)) return *code;
    bench::write_synthetic_set(
        {o.folder, 1000, 10, [](uint64_t i) { return bench::synthetic_jpeg(8, i % 50); }, {}});
    Soak soak(o);
    fmt::print("{}\n", soak.run().dump());
    return soak.flat() ? 0 : 1;
  });
}

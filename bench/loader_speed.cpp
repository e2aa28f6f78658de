// Images per second of the loader on a packed data set: read, CRC32C, decode, crop, resize, flip
// into uint8 batches. One JSON line, for people and for scripts that run it beside other loaders.
//   loader_speed --data DATASET [--threads 1] [--size 224] [--batch 64] [--seconds 5] [--warm 1.5]
//     [--read pread] [--crop random_resized] [--interpolation bicubic] [--antialias] [--recipe]
//     [--alone] [--check-cost]
// --alone: the same images from memory by the same number of threads without loader, files and
// checksums: what decoding alone allows. --recipe: with MixUp, CutMix and RandAugment.
// --check-cost: reads with and without the CRC32C by turns, to tell what checking costs.
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "core/command_line.h"
#include "core/error.h"
#include "core/jsonl.h"
#include "core/program.h"
#include "data_pipeline/loader.h"
#include "data_pipeline/slot.h"

namespace {

using namespace nf;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string path, split = "train", crop = "random_resized", interpolation = "bicubic",
                    read = "pread";
  int64_t size = 224, batch = 64;
  int threads = 1;
  double seconds = 5, warm = 1.5;
  bool antialias = false, recipe = false, alone = false, check_cost = false;
};

void add_options(CLI::App& app, Options& o) {
  app.add_option("--data", o.path, "data set folder")->required();
  app.add_option("--split", o.split, "split")->capture_default_str();
  app.add_option("--size", o.size, "image side, pixels")->capture_default_str();
  app.add_option("--batch", o.batch, "images a batch")->capture_default_str();
  app.add_option("--threads", o.threads, "loader threads")->capture_default_str();
  app.add_option("--seconds", o.seconds, "time to measure")->capture_default_str();
  app.add_option("--warm", o.warm, "seconds before, at least one pass")->capture_default_str();
  app.add_option("--crop", o.crop, "random_resized or random_padded")
      ->check(CLI::IsMember({"random_resized", "random_padded"}));
  app.add_option("--interpolation", o.interpolation, "bicubic or bilinear")
      ->check(CLI::IsMember({"bicubic", "bilinear"}));
  app.add_option("--read", o.read, "pread or mmap")->check(CLI::IsMember({"pread", "mmap"}));
  app.add_flag("--antialias", o.antialias, "triangle filter when shrinking");
  app.add_flag("--recipe", o.recipe, "MixUp 0.2, CutMix, RandAugment 4 x 5");
  app.add_flag("--alone", o.alone, "decoding alone, from memory");
  app.add_flag("--check-cost", o.check_cost, "microseconds of read and check a sample, by turns");
}

data::AugmentOptions augment_of(const Options& o) {
  data::AugmentOptions a;
  a.image_size = o.size;
  a.crop = o.crop == "random_padded" ? data::Crop::kRandomPadded : data::Crop::kRandomResized;
  a.interpolation = o.interpolation == "bilinear" ? data::Interpolation::kBilinear
                                                  : data::Interpolation::kBicubic;
  a.antialias = o.antialias;
  if (o.recipe) {
    a.mix = {0.2, true};
    a.randaugment = {4, 5};
  }
  return a;
}

double since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double cpu_seconds() {
  rusage r{};
  getrusage(RUSAGE_SELF, &r);
  return static_cast<double>(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

double pss_mib() {
  std::ifstream in("/proc/self/smaps_rollup");
  for (std::string word; in >> word;) {
    if (word != "Pss:") continue;
    double kib = 0;
    in >> kib;
    return kib / 1024;
  }
  return 0;
}

struct Measured {
  int64_t images = 0;
  double seconds = 0, cpu = 0, first_batch = 0;
};

Measured run_loader(const Options& o, const data::ShardDataset& set, Clock::time_point start) {
  const data::Sampler sampler({.samples = set.size()});
  const data::TrainPlan plan{static_cast<uint64_t>(o.batch), 1, uint64_t{1} << 40, 0, 1};
  data::Loader loader(set, sampler, plan.plan(), augment_of(o), 1, {o.threads, 4});
  Measured m;
  const auto next = [&] {
    auto batch = loader.next();
    if (!batch->bad.empty()) throw Error(ExitCode::kData, o.path, batch->bad[0].reason);
    const int64_t count = batch->count;
    loader.recycle(std::move(*batch));
    return count;
  };
  auto seen = static_cast<uint64_t>(next());
  m.first_batch = since(start);
  const auto warm = Clock::now();
  while (since(warm) < o.warm || seen < set.size()) seen += static_cast<uint64_t>(next());
  const auto begin = Clock::now();
  const double cpu = cpu_seconds();
  while ((m.seconds = since(begin)) < o.seconds) m.images += next();
  m.cpu = cpu_seconds() - cpu;
  return m;
}

Measured run_alone(const Options& o, const data::ShardDataset& set) {
  std::vector<data::SampleData> samples(set.size());
  for (uint64_t i = 0; i < set.size(); ++i) set.read(i, samples[i]);
  const data::AugmentOptions augment = augment_of(o);
  std::atomic<uint64_t> position{0};
  std::atomic<int64_t> images{0};
  std::atomic<bool> stop{false};
  Measured m;
  std::vector<std::jthread> threads;
  for (int t = 0; t < o.threads; ++t) {
    threads.emplace_back([&] {
      data::LoadScratch scratch;
      std::vector<uint8_t> out(static_cast<size_t>(o.size * o.size * 3));
      while (!stop) {
        const uint64_t p = position++;
        if (data::load_image(samples[p % samples.size()].bytes, augment, 1, p, out.data(), scratch)
                .ok())
          ++images;
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::duration<double>(o.warm));
  const int64_t before = images;
  const auto begin = Clock::now();
  const double cpu = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::duration<double>(o.seconds));
  m.images = images - before;
  m.seconds = since(begin);
  m.cpu = cpu_seconds() - cpu;
  stop = true;
  return m;
}

// Thread seconds of one pass over the samples: reads, with or without the check, and nothing else.
double pass(const data::ShardDataset& set, bool check) {
  data::SampleData sample;
  const auto begin = Clock::now();
  for (uint64_t i = 0; i < set.size(); ++i) {
    const auto fault = check ? set.read(i, sample) : set.read_unchecked(i, sample);
    if (!fault.ok()) throw Error(ExitCode::kData, "loader_speed", fault.reason);
  }
  return since(begin);
}

// What the checksum adds to an image of the loader, in percent of its thread time.
Json check_cost(const data::ShardDataset& set, double cpu_per_image) {
  std::vector<double> costs;
  for (int r = 0; r < 21; ++r) {
    const double without = pass(set, false), with = pass(set, true);
    costs.push_back((with - without) / static_cast<double>(set.size()));
  }
  std::sort(costs.begin(), costs.end());
  return {{"us_per_image", 1e6 * costs[10]}, {"percent", 100 * costs[10] / cpu_per_image}};
}

int run(int argc, char** argv) {
  const auto start = Clock::now();
  CLI::App app("Loader throughput on a packed data set.", "loader_speed");
  Options o;
  add_options(app, o);
  if (const auto code = parse_command_line(app, argc, argv)) return *code;
  const data::ShardDataset set(o.path, o.split, {.mapped = o.read == "mmap"});
  const Measured m = o.alone ? run_alone(o, set) : run_loader(o, set, start);
  const auto images = static_cast<double>(m.images);
  Json out = {{"program", o.alone ? "nfscale decoding alone" : "nfscale loader"},
              {"threads", o.threads},
              {"read", o.read},
              {"size", o.size},
              {"interpolation", o.interpolation + (o.antialias ? " antialias" : "")},
              {"images", m.images},
              {"seconds", m.seconds},
              {"images_per_s", images / m.seconds},
              {"cpu_s_per_image", m.cpu / images},
              {"first_batch_s", m.first_batch},
              {"pss_mib", pss_mib()}};
  if (o.check_cost) out["check"] = check_cost(set, m.cpu / images);
  fmt::print("{}\n", out.dump());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("loader_speed", [&] { return run(argc, argv); });
}

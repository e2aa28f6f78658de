// Images per second of the loader alone on a real data set: read, CRC, decode, crop, flip, resize
// into uint8 batches.
//   loader_speed --data DATASET [--split train] [--size 224] [--threads 1] [--seconds 5] [--batch
//   64] [--crop random_resized]
// One JSON line, with thread CPU time per image, so that noise of a shared host can be told from
// work.
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>

#include "core/command_line.h"
#include "core/jsonl.h"
#include "core/program.h"
#include "data_pipeline/loader.h"

int main(int argc, char** argv) {
  return nf::run_program("loader_speed", [&] {
    using namespace nf;
    CLI::App app("Loader throughput on a packed data set.", "loader_speed");
    std::string path, split = "train", crop = "random_resized";
    int64_t size = 224, batch = 64;
    int threads = 1;
    double seconds = 5;
    app.add_option("--data", path, "data set folder")->required();
    app.add_option("--split", split, "split")->capture_default_str();
    app.add_option("--size", size, "image side, pixels")->capture_default_str();
    app.add_option("--batch", batch, "images a batch")->capture_default_str();
    app.add_option("--threads", threads, "loader threads")->capture_default_str();
    app.add_option("--seconds", seconds, "time to measure")->capture_default_str();
    app.add_option("--crop", crop, "random_resized or random_padded")->capture_default_str();
    if (const auto code = parse_command_line(app, argc, argv)) return *code;
    const data::ShardDataset set(path, split);
    data::SamplerOptions order;
    order.samples = set.size();
    const data::Sampler sampler(order);
    data::TrainPlan plan;
    plan.batch_size = static_cast<uint64_t>(batch);
    plan.micro_batches = 1;
    plan.end_position = uint64_t{1} << 40;
    data::AugmentOptions augment;
    augment.image_size = size;
    augment.crop = crop == "random_padded" ? data::Crop::kRandomPadded : data::Crop::kRandomResized;
    data::Loader loader(set, sampler, plan.plan(), augment, 1, {threads, 4});
    using Clock = std::chrono::steady_clock;
    const auto cpu_seconds = [] {
      rusage r{};
      getrusage(RUSAGE_SELF, &r);
      return static_cast<double>(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
             1e-6 * static_cast<double>(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
    };
    const auto warm = Clock::now();
    while (std::chrono::duration<double>(Clock::now() - warm).count() < 1.0) loader.next();
    const auto start = Clock::now();
    const double cpu = cpu_seconds();
    int64_t images = 0;
    double passed = 0;
    while ((passed = std::chrono::duration<double>(Clock::now() - start).count()) < seconds)
      images += loader.next()->count;
    fmt::print("{}\n",
               Json{{"program", "nfscale loader"},
                    {"threads", threads},
                    {"size", size},
                    {"images_per_s", static_cast<double>(images) / passed},
                    {"cpu_ms_per_image", 1e3 * (cpu_seconds() - cpu) / static_cast<double>(images)}}
                   .dump());
    return 0;
  });
}

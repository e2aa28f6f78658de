// What a training step costs beside what the machine allows: images per second, milliseconds of
// forward, backward, update, and of CPU time; MFU against a matrix product measured in the same
// process, memory and its growth; and the pass of AGC, SGD and average alone against the memory's
// bandwidth. Needs LibTorch, neither MPI, HDF5 nor OpenCV. bench/step_versus.py runs it beside
// timm.
//   step_speed [step|optim|all] [--model nfnet_f0 --size 192 --batch 8 --compute bfloat16]
//     [--steps 30] [--threads 2] [--device cuda] [--json]
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "bench/measure.h"
#include "bench/training_step.h"
#include "core/command_line.h"
#include "core/jsonl.h"
#include "core/process_memory.h"
#include "core/program.h"
#include "models/nfnet/cost.h"
#include "trainer/device/cpu_pool.h"
#include "trainer/device_peak.h"

namespace {

using namespace nf;
using bench::cpu_seconds;
using bench::median;

constexpr double kMiB = 1048576.0;

struct Options {
  std::string mode = "all", model = "nfnet_nano", compute = "float32", device = "cpu";
  std::string flavour = "dm";
  bench::StepShape shape;
  int64_t classes = 0;
  int steps = 30, warm = 3, threads = 1;
  bool json = false, malloc_only = false;
  int64_t max_heap_growth = -1;
};

void add_options(CLI::App& app, Options& o) {
  app.add_option("mode", o.mode, "step, optim (the update alone) or all")
      ->check(CLI::IsMember({"step", "optim", "all"}))
      ->capture_default_str();
  app.add_option("--model", o.model, "name of the network")->capture_default_str();
  app.add_option("--size", o.shape.image_size, "pixels a side")
      ->check(CLI::Range(8, 4096))
      ->capture_default_str();
  app.add_option("--batch", o.shape.batch, "images a step")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--micro-batches", o.shape.micro_batches, "equal parts of the batch, in turns")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--compute", o.compute, "float32 or bfloat16")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
  app.add_option("--flavour", o.flavour, "dm (tanh GELU) or timm (erf)")->capture_default_str();
  app.add_option("--classes", o.classes, "0: those of the network's table");
  app.add_option("--steps", o.steps, "measured steps")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  app.add_option("--warm", o.warm, "steps before them")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app.add_option("--threads", o.threads, "of LibTorch")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--device", o.device, "cpu, cuda or auto")
      ->check(CLI::IsMember({"cpu", "cuda", "auto"}))
      ->capture_default_str();
  app.add_flag("--nhwc", o.shape.nhwc, "on a GPU: images in NHWC, not NCHW (the CPU's are NHWC)");
  app.add_flag("--recompute", o.shape.recompute_blocks, "blocks are computed again (less memory)");
  app.add_flag("--malloc", o.malloc_only, "CPU tensors from malloc, not from nf-train's pool");
  app.add_option(
      "--max-heap-growth", o.max_heap_growth,
      "exit with 1 when the heap grows by more bytes after a fifth of the steps (malloc's "
      "caches of a thread, a few KiB, count too)");
  app.add_flag("--json", o.json, "one JSON line behind the table");
}

// Memory in use, for growth between two moments.
struct Memory {
  double resident = resident_bytes(), heap = heap_bytes();
  static double heap_bytes() {
    const auto info = ::mallinfo2();
    return static_cast<double>(info.uordblks + info.hblkhd);
  }
};

void print_times(const char* name, const std::vector<double>& seconds) {
  const auto [low, high] = std::minmax_element(seconds.begin(), seconds.end());
  fmt::print("  {:<9}{:>11.2f} ms  ({:.2f} to {:.2f})\n", name, 1e3 * median(seconds), 1e3 * *low,
             1e3 * *high);
}

// The steps, measured: fills `out` and prints the table.
void measure_step(const Options& o, const model::NfnetSpec& spec, at::Device device, Json& out) {
  bench::TrainingStep step(spec, o.shape, device);
  for (int i = 0; i < o.warm; ++i) step.run();
  const auto count = static_cast<size_t>(o.steps);
  std::vector<double> forward(count), backward(count), update(count), total(count), cpu(count);
  Memory settled, end;
  for (size_t i = 0; i < count; ++i) {
    if (i == count / 5) settled = Memory();
    const double cpu_before = cpu_seconds();
    const bench::StepTimes t = step.run();
    cpu[i] = cpu_seconds() - cpu_before;
    forward[i] = t.forward;
    backward[i] = t.backward;
    update[i] = t.update;
    total[i] = t.total();
  }
  end = Memory();
  const double speed = static_cast<double>(o.shape.batch) / median(total);
  const double flops = 6.0 * model::forward_macs(spec, o.shape.image_size);
  const double limit = train::matmul_flops(device, o.shape.compute, 2048, 7);
  const double mfu = speed * flops / limit;
  print_times("step", total);
  print_times("forward", forward);
  print_times("backward", backward);
  print_times("update", update);
  print_times("CPU time", cpu);
  fmt::print(
      "  {:.2f} images/s; MFU {:.3f}: {:.2f} GFLOP an image, matrix product {:.1f} GFLOP/s\n",
      speed, mfu, 1e-9 * flops, 1e-9 * limit);
  fmt::print(
      "  memory: at most {:.1f} MiB resident; after step {} resident {:+.0f}, heap {:+.0f} bytes\n",
      peak_resident_bytes() / kMiB, count / 5, end.resident - settled.resident,
      end.heap - settled.heap);
  out["images_per_s"] = speed;
  out["ms"] = {{"step", 1e3 * median(total)},
               {"forward", 1e3 * median(forward)},
               {"backward", 1e3 * median(backward)},
               {"update", 1e3 * median(update)},
               {"cpu", 1e3 * median(cpu)}};
  out["train_gflop_per_image"] = 1e-9 * flops;
  out["matmul_gflops"] = 1e-9 * limit;
  out["mfu"] = mfu;
  out["loss"] = step.loss();
  out["peak_mib"] = peak_resident_bytes() / kMiB;
  out["resident_growth_bytes"] = end.resident - settled.resident;
  out["heap_growth_bytes"] = end.heap - settled.heap;
}

// Median seconds of `work`, after it ran twice.
template <class Work>
double seconds_of(at::Device device, int rounds, const Work& work) {
  std::vector<double> times;
  for (int i = -2; i < rounds; ++i) {
    train::synchronize(device);
    const auto begin = std::chrono::steady_clock::now();
    work();
    train::synchronize(device);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (i >= 0) times.push_back(took.count());
  }
  return median(times);
}

// Bytes per second of the fastest of three plain passes over arrays as long as the parameters, by
// the same threads: a copy, STREAM's triad, and the triad in place, which alone writes no line that
// it has not read.
double bandwidth(at::Device device, int64_t elements, int rounds) {
  const at::TensorOptions type = at::TensorOptions(at::kFloat).device(device);
  at::Tensor a = at::ones({elements}, type);
  const at::Tensor b = at::ones({elements}, type), c = at::ones({elements}, type);
  const double copy = 8.0 / seconds_of(device, rounds, [&] { a.copy_(b); });
  const double triad = 12.0 / seconds_of(device, rounds, [&] { at::add_out(a, b, c, 0.5); });
  const double in_place = 12.0 / seconds_of(device, rounds, [&] { a.add_(b, 0.5); });
  return std::max({copy, triad, in_place}) * static_cast<double>(elements);
}

// The update alone, as a step calls it: the gradient is known to be finite since it was written.
// Weight, gradient, momentum and average are read and all but the gradient written, 28 bytes a
// parameter. Beside it the update that has to look first: 4 bytes more.
void measure_update(const Options& o, const model::NfnetSpec& spec, at::Device device, Json& out) {
  bench::UpdatedNet model(spec, device);
  const at::NoGradGuard no_grad;
  const auto elements = static_cast<int64_t>(model.layout().elements());
  at::Tensor noise = at::empty({elements});
  const at::Tensor gradient = noise.normal_(0, 0.01, at::detail::createCPUGenerator(1)).to(device);
  const double seconds = seconds_of(device, o.steps, [&] { model.update(gradient, 1.0, true); });
  const double unknown = seconds_of(device, o.steps, [&] { model.update(gradient, 1.0, false); });
  const double bytes = 28.0 * static_cast<double>(model::model_cost(spec).parameters);
  const double limit = bandwidth(device, elements, o.steps);
  fmt::print(
      "  optimizer{:>11.3f} ms: {:.1f} MB at {:.2f} GB/s, {:.2f} of the {:.2f} GB/s of a plain "
      "pass\n",
      1e3 * seconds, 1e-6 * bytes, 1e-9 * bytes / seconds, bytes / seconds / limit, 1e-9 * limit);
  out["optim"] = {{"ms", 1e3 * seconds},
                  {"ms_finite_unknown", 1e3 * unknown},
                  {"bytes", bytes},
                  {"gb_per_s", 1e-9 * bytes / seconds},
                  {"bandwidth_gb_per_s", 1e-9 * limit},
                  {"of_bandwidth", bytes / seconds / limit}};
}

int run(Options& o) {
  if (o.shape.batch % o.shape.micro_batches != 0)
    throw Error(ExitCode::kUsage, "--micro-batches", "does not divide --batch");
  o.shape.compute = o.compute == "bfloat16" ? at::kBFloat16 : at::kFloat;
  model::NfnetSpec spec = model::nfnet_spec(o.model);
  spec.flavour = model::parse_flavour(o.flavour);
  if (o.classes > 0) spec.classes = o.classes;
  at::set_num_threads(o.threads);
  const at::Device device = train::resolve_device(o.device, 0);
  if (!o.malloc_only) train::use_cpu_pool();
  const int64_t parameters = model::model_cost(spec).parameters;
  Json out = {{"program", "step_speed"},
              {"mode", o.mode},
              {"model", o.model},
              {"flavour", o.flavour},
              {"classes", spec.classes},
              {"parameters", parameters},
              {"size", o.shape.image_size},
              {"batch", o.shape.batch},
              {"micro_batches", o.shape.micro_batches},
              {"compute", o.compute},
              {"device", device.str()},
              {"layout", device.is_cpu() || o.shape.nhwc ? "nhwc" : "nchw"},
              {"threads", o.threads},
              {"steps", o.steps}};
  fmt::print("{}: {} parameters, {} classes; {} px, batch {} in {}, {}; {}, {} threads\n", o.model,
             parameters, spec.classes, o.shape.image_size, o.shape.batch, o.shape.micro_batches,
             o.compute, device.str(), o.threads);
  if (o.mode != "optim") measure_step(o, spec, device, out);
  if (o.mode != "step") measure_update(o, spec, device, out);
  if (o.json) fmt::print("{}\n", out.dump());
  if (o.max_heap_growth >= 0 && out.value("heap_growth_bytes", 0.0) > double(o.max_heap_growth))
    throw Error(ExitCode::kOther, "step_speed",
                "the heap grew by " + out["heap_growth_bytes"].dump() + " bytes");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  setenv("MKL_CBWR", "AUTO", 0);  // as nf-train does (trainer/program.cpp), before MKL's first call
  return run_program("step_speed", [&] {
    CLI::App app("Speed of a training step and of its update.", "step_speed");
    Options o;
    add_options(app, o);
    if (const auto code = parse_command_line(app, argc, argv)) return *code;
    return run(o);
  });
}

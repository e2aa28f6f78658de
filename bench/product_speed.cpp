// The products of docs/decisions/022 and 023 beside the libraries' in one process, in turns:
// milliseconds (median) and GFLOP/s, counted as if borders were multiplied too. Needs LibTorch
// alone.
//   product_speed [--threads 2] [--rounds 9]
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "core/command_line.h"
#include "core/program.h"
#include "models/nfnet/rows_product.h"
#include "models/nfnet/weight_gradient.h"
#include "models/nfnet/winograd.h"
#include "trainer/device/cpu_pool.h"

namespace {

using namespace nf;
using Way = std::function<void()>;

// Milliseconds of each way, taken in turns after one round that does not count.
std::vector<double> time_in_turns(const std::vector<Way>& ways, int rounds) {
  std::vector<std::vector<double>> times(ways.size());
  for (int round = -1; round < rounds; ++round)
    for (size_t i = 0; i < ways.size(); ++i) {
      const auto begin = std::chrono::steady_clock::now();
      ways[i]();
      const std::chrono::duration<double, std::milli> t = std::chrono::steady_clock::now() - begin;
      if (round >= 0) times[i].push_back(t.count());
    }
  std::vector<double> medians;
  for (const auto& t : times) medians.push_back(bench::median(t));
  return medians;
}

void print(const std::string& what, const std::vector<double>& ms, double gflop) {
  fmt::print("| {} |", what);
  for (const double t : ms) fmt::print(" {:.2f} ms, {:.0f} |", t, gflop / t * 1e3);
  fmt::print("\n");
}

struct Conv {
  int64_t batch, in, out, side, kernel, stride, padding, groups;
  int64_t after() const { return (side + 2 * padding - kernel) / stride + 1; }
};

// Of a convolution: its input, its weight and its result's gradient, drawn, in NHWC.
struct Tensors {
  Tensors(const Conv& c, at::ScalarType type)
      : x(draw({c.batch, c.in, c.side, c.side}, type)),
        w(draw({c.out, c.in / c.groups, c.kernel, c.kernel}, type)),
        g(draw({c.batch, c.out, c.after(), c.after()}, type)) {}
  static at::Tensor draw(at::IntArrayRef shape, at::ScalarType type) {
    return at::randn(shape).to(type).contiguous(at::MemoryFormat::ChannelsLast);
  }
  at::Tensor x, w, g;
};

void weight_gradients(at::ScalarType type, const std::vector<Conv>& cases, int rounds) {
  fmt::print(
      "\n| weight gradient, {} | ours, GFLOP/s | oneDNN's convolution | LibTorch's product |\n"
      "|---|---|---|---|\n",
      type == at::kFloat ? "float32" : "bfloat16");
  for (const Conv& c : cases) {
    const Tensors t(c, type);
    const at::Tensor &x = t.x, &w = t.w, &g = t.g;
    std::vector<Way> ways = {[&] {
                               model::weight_gradient(x, g, c.kernel, c.kernel,
                                                      {c.stride, c.padding, c.padding, c.groups});
                             },
                             [&] {
                               at::convolution_backward(g, x, w, at::IntArrayRef(c.out),
                                                        {c.stride, c.stride},
                                                        {c.padding, c.padding}, {1, 1}, false,
                                                        {0, 0}, c.groups, {false, true, true});
                             }};
    if (c.kernel == 1)
      ways.emplace_back([&] {
        const at::Tensor rows = g.permute({0, 2, 3, 1}).reshape({-1, c.out});
        rows.t().mm(x.permute({0, 2, 3, 1}).reshape({-1, c.in}));
        rows.sum(0);
      });
    const double gflop = 2e-9 * static_cast<double>(g.numel() * w.size(1) * c.kernel * c.kernel);
    print(fmt::format("{} to {}, {}x{}, stride {}, {} groups, {} px, batch {}", c.in, c.out,
                      c.kernel, c.kernel, c.stride, c.groups, c.after(), c.batch),
          time_in_turns(ways, rounds), gflop);
  }
}

// 3x3 convolutions with stride 1: two ways of each of the three products, and how far the result of
// Winograd's and of oneDNN's is from float64, relative to its norm.
void winograd(at::ScalarType type, const std::vector<Conv>& cases, int rounds) {
  fmt::print(
      "\n| Winograd, {} | forward, GFLOP/s as if direct | oneDNN | of images | oneDNN | of weight "
      "| "
      "weight_gradient |\n|---|---|---|---|---|---|---|\n",
      type == at::kFloat ? "float32" : "bfloat16");
  for (const Conv& c : cases) {
    const Tensors t(c, type);
    const at::Tensor &x = t.x, &w = t.w, &g = t.g;
    const at::Tensor b = at::randn({c.out}).to(type);
    const auto directly = [&](const at::Tensor& in, const at::Tensor& kernel,
                              const at::Tensor& bias) {
      return at::convolution(in, kernel, bias, {1, 1}, {1, 1}, {1, 1}, false, {0, 0}, c.groups);
    };
    const auto exact = [](const at::Tensor& tensor) { return tensor.to(at::kDouble); };
    const at::Tensor result = directly(exact(x), exact(w), exact(b));
    const auto error = [&](const at::Tensor& found) {
      return ((exact(found) - result).norm() / result.norm()).item<double>();
    };
    const std::vector<Way> ways = {
        [&] { model::winograd_conv(x, w, b, c.groups); },
        [&] {
          at::convolution(x, w, b, {1, 1}, {1, 1}, {1, 1}, false, {0, 0}, c.groups);
        },
        [&] { model::winograd_of_images(g, w, c.groups); },
        [&] {
          at::convolution_backward(g, x, w, at::IntArrayRef(c.out), {1, 1}, {1, 1}, {1, 1}, false,
                                   {0, 0}, c.groups, {true, false, false});
        },
        [&] { model::winograd_of_weight(x, g, c.groups); },
        [&] {
          model::weight_gradient(x, g, 3, 3, {1, 1, 1, c.groups});
        }};
    const double gflop = 2e-9 * static_cast<double>(g.numel() * w.size(1) * 9);
    print(fmt::format("{} to {}, {} groups, {} px, batch {}; forward's errors {:.1e}, {:.1e}", c.in,
                      c.out, c.groups, c.side, c.batch,
                      error(model::winograd_conv(x, w, b, c.groups)), error(directly(x, w, b))),
          time_in_turns(ways, rounds), gflop);
  }
}

void row_products(int rounds) {
  fmt::print("\n| rows x depth x columns, float32 | ours, GFLOP/s | MKL |\n|---|---|---|\n");
  for (const auto& [m, k, n] : std::vector<std::array<int64_t, 3>>{
           {32768, 16, 32}, {8192, 64, 128}, {8192, 192, 96}, {2048, 128, 256}}) {
    const at::Tensor rows = at::randn({m, k}), matrix = at::randn({n, k}), bias = at::randn({n});
    print(fmt::format("{} x {} x {}", m, k, n),
          time_in_turns({[&] { model::rows_product(rows, matrix.t(), bias); },
                         [&] { at::addmm(bias, rows, matrix.t()); }},
                        rounds),
          2e-9 * static_cast<double>(m * k * n));
  }
}

void measure(int rounds) {
  const std::vector<Conv> large = {
      {8, 768, 768, 12, 3, 1, 1, 6}, {8, 768, 768, 6, 3, 1, 1, 6},  {8, 768, 768, 25, 3, 2, 0, 6},
      {8, 768, 768, 13, 3, 2, 0, 6}, {8, 256, 256, 24, 3, 1, 1, 2}, {8, 256, 256, 49, 3, 2, 0, 2},
      {8, 128, 128, 48, 3, 1, 1, 1}, {8, 64, 128, 97, 3, 2, 0, 1},  {8, 512, 768, 24, 1, 1, 0, 1},
      {8, 256, 256, 48, 1, 1, 0, 1}, {8, 768, 1536, 12, 1, 1, 0, 1}};
  weight_gradients(at::kBFloat16, large, rounds);
  weight_gradients(at::kFloat, large, rounds);
  weight_gradients(
      at::kFloat,
      {{128, 64, 128, 8, 1, 1, 0, 1}, {128, 96, 64, 8, 1, 1, 0, 1}, {128, 64, 64, 8, 3, 1, 1, 4}},
      rounds);
  const std::vector<Conv> wide = {{8, 768, 768, 12, 3, 1, 1, 6},
                                  {8, 768, 768, 6, 3, 1, 1, 6},
                                  {8, 256, 256, 24, 3, 1, 1, 2},
                                  {8, 128, 128, 48, 3, 1, 1, 1},
                                  {8, 32, 64, 96, 3, 1, 1, 1}};
  winograd(at::kBFloat16, wide, rounds);
  winograd(at::kFloat, wide, rounds);
  winograd(
      at::kFloat,
      {{128, 96, 96, 8, 3, 1, 1, 6}, {128, 128, 128, 4, 3, 1, 1, 8}, {128, 32, 32, 16, 3, 1, 1, 2}},
      rounds);
  row_products(rounds);
}

}  // namespace

int main(int argc, char** argv) {
  setenv("MKL_CBWR", "AUTO", 0);  // as nf-train does (trainer/program.cpp), before MKL's first call
  return run_program("product_speed", [&] {
    CLI::App app("Convolutions' products beside the libraries'.", "product_speed");
    int threads = 2, rounds = 9;
    app.add_option("--threads", threads, "of each product")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
    app.add_option("--rounds", rounds, "of which the median is told")
        ->check(CLI::Range(1, 10000))
        ->capture_default_str();
    if (const auto code = parse_command_line(app, argc, argv)) return *code;
    at::set_num_threads(threads);
    train::use_cpu_pool();
    measure(rounds);
    return 0;
  });
}

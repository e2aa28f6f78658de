// Do 95 % intervals hold the truth? Tables made anew from a known law, each fitted and
// bootstrapped; the share of intervals that cover it, and their mean width. Also each plan's true
// regret.
#include <fmt/format.h>

#include <cmath>

#include "analysis/cells.h"
#include "analysis/scaling_law.h"
#include "core/command_line.h"
#include "core/program.h"
#include "tests/analysis/made_sweep.h"

namespace {
using namespace nf::analysis;

struct Quantity {
  const char* name;
  double (*value)(const ScalingLaw&);
  double truth;
  int covered = 0;
  double width = 0;
};

int start(int argc, char** argv) {
  CLI::App app{"Coverage of the law's 95 % intervals over made tables.", "scaling_coverage"};
  app.footer("example:\n  scaling_coverage --tables 60");
  int tables = 60, samples = 1000;
  app.add_option("--tables", tables, "tables to make")->capture_default_str();
  app.add_option("--bootstrap", samples, "samples a table")->capture_default_str();
  if (const auto code = nf::parse_command_line(app, argc, argv)) return *code;
  const nf::test::Truth truth;
  Quantity quantities[] = {
      {"E", [](const ScalingLaw& l) { return l.E; }, truth.E},
      {"alpha", [](const ScalingLaw& l) { return l.alpha; }, truth.alpha},
      {"beta", [](const ScalingLaw& l) { return l.beta; }, truth.beta},
      {"exponent of size", [](const ScalingLaw& l) { return l.exponent_size(); }, 0.5}};
  double worst_regret = 0;
  for (int t = 0; t < tables; ++t) {
    const auto selection = nf::test::made_sweep(truth, 1000 + static_cast<uint64_t>(t));
    std::vector<LawPoint> points;
    for (const Cell& cell : make_cells(selection, RateGrid{}))
      points.push_back({cell.size, cell.images, cell.loss()});
    const ScalingLaw law = fit_law(points);
    BootstrapOptions options;
    options.samples = samples;
    options.seed = static_cast<uint64_t>(t) + 1;
    const LawBootstrap bootstrap = bootstrap_law(points, law, options);
    for (Quantity& q : quantities) {
      const Interval i = bootstrap.of(q.value);
      q.covered += i.lo <= q.truth && q.truth <= i.hi ? 1 : 0;
      q.width += (i.hi - i.lo) / tables;
    }
    for (const double hours : {1e3, 5e3, 2e4, 1.1e5, 1e6}) {
      const double compute = hours * 3600 * 5.5e13;
      double chosen = INFINITY, chosen_true = 0, best_true = INFINITY;
      for (const auto& [model, size] : nf::test::made_models()) {
        const double fitted = law.loss(size, compute / size);
        const double real = truth.loss(size, compute / size);
        best_true = std::min(best_true, real);
        if (fitted < chosen) {
          chosen = fitted;
          chosen_true = real;
        }
      }
      worst_regret = std::max(worst_regret, chosen_true - best_true);
    }
  }
  fmt::print("{} tables of 36 cells, {} bootstrap samples each\n", tables, samples);
  fmt::print("{:18}{:>10}{:>14}\n", "", "covered", "mean width");
  for (const Quantity& q : quantities)
    fmt::print("{:18}{:>9.1f}%{:>14.4f}\n", q.name, 100.0 * q.covered / tables, q.width);
  fmt::print("largest true regret of a plan: {:.5f} nats\n", worst_regret);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return nf::run_program("scaling_coverage", [&] { return start(argc, argv); });
}

// Seconds on one core of what nf-fit does, medians of several rounds: reading tables of 10,000 and
// 1,000,000 rows, a plc fit with all its starts, the law with 1,000 bootstrap samples on 200 cells,
// and the whole report.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>

#include "analysis/report.h"
#include "analysis/statistics.h"
#include "core/command_line.h"
#include "core/program.h"
#include "core/rng.h"
#include "tests/analysis/made_sweep.h"

namespace {
using namespace nf::analysis;

template <class Work>
void measure(const char* what, int rounds, const Work& work) {
  std::vector<double> seconds;
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  const auto [least, most] = std::minmax_element(seconds.begin(), seconds.end());
  fmt::print("{:52} {:9.4f} s  ({:.4f} to {:.4f})\n", what, median(seconds), *least, *most);
}

std::string made_table(int rows) {
  std::string text =
      "run,model,params,train_flops_per_image,epochs,images_seen,learning_rate,batch,image_size,"
      "seed,train_flops,device_hours,cost_usd,heldout_loss,heldout_top1,status,images_missed\n";
  const auto made = nf::test::made_sweep({}, 1).used;
  for (int i = 0; i < rows; ++i) {
    const Run& r = made[static_cast<size_t>(i) % made.size()];
    text += fmt::format(
        "r{:07},{},71489284,{:.4e},{},{:.0f},{},4096,224,{},{:.6g},{:.6g},{:.2f},"
        "{:.6f},,done,0\n",
        i, r.model, r.train_flops_per_image, r.epochs, r.images_seen, r.learning_rate,
        i / static_cast<int>(made.size()), r.train_flops, r.device_hours, r.cost_usd,
        r.heldout_loss);
  }
  return text;
}

std::vector<LawPoint> law_points(int models, int budgets) {
  nf::PositionRng rng(3, nf::Stream::kTest, 0);
  const nf::test::Truth truth;
  std::vector<LawPoint> points;
  for (int m = 0; m < models; ++m)
    for (int b = 0; b < budgets; ++b) {
      const double size = 5e10 * std::pow(1.15, m), images = 1e9 * std::pow(1.5, b);
      points.push_back({size, images, truth.loss(size, images) * std::exp(0.002 * rng.normal())});
    }
  return points;
}

int start(int argc, char** argv) {
  CLI::App app{"Seconds of nf-fit's parts on one core.", "scaling_speed"};
  app.footer("example:\n  scaling_speed --rounds 5");
  int rounds = 3;
  std::string folder = "/tmp";
  app.add_option("--rounds", rounds, "rounds; the median counts")->capture_default_str();
  app.add_option("--folder", folder, "for the tables and the report")->capture_default_str();
  if (const auto code = nf::parse_command_line(app, argc, argv)) return *code;
  const std::filesystem::path scratch =
      std::filesystem::path(folder) / fmt::format("nf-scaling-speed-{}", getpid());
  std::filesystem::create_directories(scratch);
  const auto small = scratch / "small.csv", large = scratch / "large.csv",
             sweep = scratch / "sweep.csv";
  std::ofstream(small) << made_table(10000);
  std::ofstream(large) << made_table(1000000);
  std::ofstream(sweep) << made_table(144);
  measure("reading 10,000 rows", rounds, [&] { (void)read_run_table(small); });
  measure("reading 1,000,000 rows", rounds, [&] { (void)read_run_table(large); });
  measure("reading 1,000,000 rows, selecting, forming cells", rounds,
          [&] { (void)make_cells(select_runs(read_run_table(large)), RateGrid{}); });
  std::vector<double> x, y;
  nf::PositionRng rng(1, nf::Stream::kTest, 0);
  for (int i = 0; i < 100; ++i) {
    x.push_back(1e6 * std::pow(1e4, i / 99.0));
    y.push_back((0.35 + 12 * std::pow(x.back(), -0.27)) * std::exp(0.01 * rng.normal()));
  }
  const CurveData data(x, y);
  measure("plc, 42 starts, 100 points", 5 * rounds,
          [&] { (void)fit_curve(data, Form::kPowerLawConstant); });
  const auto points = law_points(20, 10);
  BootstrapOptions one_core;
  one_core.threads = 1;
  measure("law, 48 starts, 1,000 bootstrap samples, 200 cells", rounds,
          [&] { (void)bootstrap_law(points, fit_law(points), one_core); });
  StudyOptions options;
  options.bootstrap = one_core;
  measure("whole report of 144 runs with plots", rounds,
          [&] { write_report(run_study(read_run_table(sweep), options), scratch); });
  std::filesystem::remove_all(scratch);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return nf::run_program("scaling_speed", [&] { return start(argc, argv); });
}

// nf-fit: scaling fits on tables (contract, "Programs"): the report of a sweep, single curves, the
// law of size and images, iso-FLOP optima, comparisons, and the planner.
#include "analysis/fit_commands.h"
#include "core/command_line.h"
#include "core/program.h"

namespace {

int start(int argc, char** argv) {
  using namespace nf::analysis;
  CLI::App app{"Scaling fits: frontier, laws with intervals, learning-rate trend, plans.",
               "nf-fit"};
  app.footer(
      "examples:\n"
      "  nf-fit --input results.csv --output report\n"
      "  nf-fit plan --fit report/fit.json --device-hours 5000\n"
      "  nf-fit curve --input curve.csv --x images --y loss --form auto --predict 1e9,1e10");
  app.require_subcommand(0, 1);
  const nf::Subcommand report = add_report_command(app);
  const std::vector<nf::Subcommand> commands = {add_curve_command(app),   add_law_command(app),
                                                add_isoflop_command(app), add_compare_command(app),
                                                add_plan_command(app),    add_predict_command(app)};
  if (const auto code = nf::parse_command_line(app, argc, argv)) return *code;
  if (const auto code = nf::run_chosen(commands)) return *code;
  return report.run();
}

}  // namespace

int main(int argc, char** argv) {
  return nf::run_program("nf-fit", [&] { return start(argc, argv); });
}

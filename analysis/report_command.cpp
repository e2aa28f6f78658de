// nf-fit --input results.csv --output REPORT_DIR: everything about a sweep.
#include <fmt/format.h>
#include <unistd.h>

#include <memory>

#include "analysis/fit_commands.h"
#include "analysis/fit_json.h"
#include "analysis/report.h"
#include "core/atomic_file.h"
#include "core/error.h"

namespace nf::analysis {
namespace {

struct ReportOptions {
  std::string input, output;
  StudyOptions study;
};

int run(const ReportOptions& o) {
  if (o.input.empty() || o.output.empty())
    throw Error(ExitCode::kUsage, "nf-fit", "--input and --output are needed, or a command",
                "see nf-fit --help");
  if (!(o.study.grid.anchor > 0) || !(o.study.grid.factor > 1))
    throw Error(ExitCode::kUsage, "nf-fit", "--lr-anchor must be positive and --lr-factor above 1");
  std::error_code failed;
  std::filesystem::create_directories(o.output, failed);
  if (failed) throw_io_error(o.output, "cannot create the report folder", failed.value());
  const Study study = run_study(read_run_table(o.input), o.study);
  const ReportResult result = write_report(study, o.output);
  for (const auto& warning : study.warnings) fmt::print(stderr, "warning: {}\n", warning);
  for (const auto& warning : result.warnings) fmt::print(stderr, "warning: {}\n", warning);
  fmt::print("{}/report.html\n", o.output);
  return 0;
}

}  // namespace

Subcommand add_report_command(CLI::App& program) {
  auto o = std::make_shared<ReportOptions>();
  program.add_option("--input", o->input, "results.csv of a sweep")->check(CLI::ExistingFile);
  program.add_option("--output", o->output, "folder for report.html, report.md, fit.json, plots");
  program
      .add_option("--allow-missed", o->study.allow_missed,
                  "largest share of its samples that a run may have missed")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  program.add_option("--delta", o->study.delta, "Huber's delta, on ln loss")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  program.add_option("--lr-anchor", o->study.grid.anchor, "learning-rate grid: anchor x factor^k")
      ->capture_default_str();
  program.add_option("--lr-factor", o->study.grid.factor, "learning-rate grid: factor")
      ->capture_default_str();
  program.add_option("--lr-cap", o->study.rate_cap, "ceiling of the learning-rate trend")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  program.add_flag("--flops", o->study.flops,
                   "compute in FLOPs, not in device-hours: where other work slowed some runs");
  program.add_flag("--reuse", o->study.reuse,
                   "also fit how much repeated passes over the data are worth");
  add_bootstrap_options(program, o->study.bootstrap);
  return {&program, [o] { return run(*o); }};
}

}  // namespace nf::analysis

// The commands of nf-fit, one file each. add_* declares a command's options; run is called after
// the command line was read.
#pragma once

#include <string>

#include "analysis/bootstrap.h"
#include "core/command_line.h"
#include "core/jsonl.h"

namespace nf::analysis {

Subcommand add_report_command(CLI::App& program);  // the program itself: --input, --output
Subcommand add_curve_command(CLI::App& program);
Subcommand add_law_command(CLI::App& program);
Subcommand add_isoflop_command(CLI::App& program);
Subcommand add_compare_command(CLI::App& program);
Subcommand add_plan_command(CLI::App& program);
Subcommand add_predict_command(CLI::App& program);

// --seed, --bootstrap, --threads
void add_bootstrap_options(CLI::App& app, BootstrapOptions& options);
// To the file (whole or not at all), or to stdout when `output` is empty.
void write_json(const Json& json, const std::string& output);
// Rows whose loss is not a positive finite number are left out with a warning, as are rows without
// a positive x; Error(kData) when none is left. columns: the values, the loss last.
void drop_bad_rows(std::vector<std::vector<double>>& columns, const std::string& file,
                   std::vector<std::string>& warnings);

}  // namespace nf::analysis

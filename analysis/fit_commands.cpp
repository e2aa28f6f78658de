// See fit_commands.h: what the commands share.
#include "analysis/fit_commands.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdio>

#include "core/atomic_file.h"
#include "core/error.h"

namespace nf::analysis {

void add_bootstrap_options(CLI::App& app, BootstrapOptions& options) {
  app.add_option("--seed", options.seed, "seed of the bootstrap")->capture_default_str();
  app.add_option("--bootstrap", options.samples, "bootstrap samples")
      ->check(CLI::Range(2, 1000000))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "threads; 0: all cores (the numbers are the same)")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
}

void write_json(const Json& json, const std::string& output) {
  const std::string text = json.dump(2) + "\n";
  if (!output.empty()) return write_file_atomic(output, text);
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw_io_error("stdout", "cannot write", errno);
}

void drop_bad_rows(std::vector<std::vector<double>>& columns, const std::string& file,
                   std::vector<std::string>& warnings) {
  const size_t rows = columns[0].size();
  size_t kept = 0, bad_loss = 0, bad_other = 0;
  for (size_t i = 0; i < rows; ++i) {
    const auto good = [&](double v) { return v > 0 && std::isfinite(v); };
    bool others = true;
    for (size_t c = 0; c + 1 < columns.size(); ++c) others = others && good(columns[c][i]);
    const bool loss = good(columns.back()[i]);
    bad_loss += loss ? 0 : 1;
    bad_other += loss && !others ? 1 : 0;
    if (!loss || !others) continue;
    for (auto& column : columns) column[kept] = column[i];
    ++kept;
  }
  for (auto& column : columns) column.resize(kept);
  const std::string reasons = fmt::format("{} bad_loss, {} bad_x", bad_loss, bad_other);
  if (kept == 0)
    throw Error(ExitCode::kData, file,
                fmt::format("none of {} chosen rows can be used: {}", rows, reasons),
                rows == 0 ? "no row meets every --where" : "losses must be positive and finite");
  if (kept < rows)
    warnings.push_back(fmt::format("{} of {} rows left out: {}", rows - kept, rows, reasons));
}

}  // namespace nf::analysis

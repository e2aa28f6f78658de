// The report of a study: report.html (one file, readable offline, text first), report.md, fit.json,
// and each plot as SVG, gnuplot script and CSV. Every file is written whole or not at all.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "analysis/plot.h"
#include "analysis/study.h"

namespace nf::analysis {

struct ReportResult {
  bool drawn = false;  // gnuplot was there
  std::vector<std::string> warnings;
};
// Throws Error (exit 1, with the path) when the folder cannot be written.
ReportResult write_report(const Study& study, const std::filesystem::path& folder);

// The plots that this study has data for; `missing` says for the others why not.
std::vector<Plot> study_plots(const Study& study, std::vector<std::string>& missing);

// Text and tables, rendered as HTML and as Markdown.
struct ReportBlock {
  enum class Kind { kHeading, kText, kList, kTable, kPlot } kind;
  std::string text;                            // heading, text, or the plot's name
  std::vector<std::string> items;              // list entries, or the table's header
  std::vector<std::vector<std::string>> rows;  // of the table
};
std::vector<ReportBlock> study_text(const Study& study, const std::vector<Plot>& plots,
                                    const std::vector<std::string>& missing);

}  // namespace nf::analysis

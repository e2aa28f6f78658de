// See report.h: rendering and writing.
#include "analysis/report.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <map>

#include "analysis/fit_json.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/temporary_folder.h"

namespace nf::analysis {
namespace fs = std::filesystem;

namespace {

using Kind = ReportBlock::Kind;
using Drawings = std::map<std::string, std::string>;  // plot name -> SVG

constexpr const char* kStyle =
    "body{font:16px/1.5 system-ui,sans-serif;color:#222;max-width:1000px;margin:2em auto;"
    "padding:0 1em}h1{font-size:1.7em}h2{font-size:1.25em;margin-top:2em}"
    "table{border-collapse:collapse;font-size:14px;display:block;overflow-x:auto}"
    "th,td{border-bottom:1px solid #ddd;padding:.25em .7em;text-align:left;vertical-align:top}"
    "th{border-bottom:2px solid #888}figure{margin:2em 0}figcaption{color:#555;font-size:14px}"
    "svg{width:100%;height:auto}";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

// The <svg> element alone: an HTML page holds no XML declaration.
std::string svg_element(const std::string& file) {
  const size_t begin = file.find("<svg");
  return begin == std::string::npos ? "" : file.substr(begin);
}

std::string html_row(const char* cell, const std::vector<std::string>& fields) {
  std::string out = "<tr>";
  for (const auto& field : fields) out += fmt::format("<{0}>{1}</{0}>", cell, escaped(field));
  return out + "</tr>\n";
}

std::string html_block(const ReportBlock& block, const Drawings& drawings) {
  std::string out;
  switch (block.kind) {
    case Kind::kHeading:
      return "<h2>" + escaped(block.text) + "</h2>\n";
    case Kind::kText:
      return "<p>" + escaped(block.text) + "</p>\n";
    case Kind::kList:
      out = "<ul>\n";
      for (const auto& item : block.items) out += "<li>" + escaped(item) + "</li>\n";
      return out + "</ul>\n";
    case Kind::kTable:
      out = "<table>\n" + html_row("th", block.items);
      for (const auto& row : block.rows) out += html_row("td", row);
      return out + "</table>\n";
    case Kind::kPlot:
      return fmt::format(
          "<figure id=\"{0}\">\n{1}\n<figcaption>{2} Data: {0}.csv</figcaption>\n"
          "</figure>\n",
          block.text, svg_element(drawings.at(block.text)), escaped(block.items[1]));
  }
  return out;
}

std::string markdown_row(const std::vector<std::string>& fields) {
  std::string out = "|";
  for (const auto& field : fields) {
    std::string plain;
    for (const char c : field) plain += c == '|' ? std::string("\\|") : std::string(1, c);
    out += " " + plain + " |";
  }
  return out + "\n";
}

std::string markdown_block(const ReportBlock& block) {
  std::string out;
  switch (block.kind) {
    case Kind::kHeading:
      return "## " + block.text + "\n\n";
    case Kind::kText:
      return block.text + "\n\n";
    case Kind::kList:
      for (const auto& item : block.items) out += "- " + item + "\n";
      return out + "\n";
    case Kind::kTable:
      out = markdown_row(block.items);
      out += markdown_row(std::vector<std::string>(block.items.size(), "---"));
      for (const auto& row : block.rows) out += markdown_row(row);
      return out + "\n";
    case Kind::kPlot:
      return fmt::format("![{0}]({1}.svg)\n\n*{2}* Data: [{1}.csv]({1}.csv)\n\n", block.items[0],
                         block.text, block.items[1]);
  }
  return out;
}

Drawings draw(const std::vector<Plot>& plots, const fs::path& folder, ReportResult& result) {
  Drawings drawings;
  const TemporaryFolder scratch("nf-fit");  // nothing half-drawn reaches the report
  result.drawn = draw_plots(plots, scratch.path());
  if (!result.drawn) {
    result.warnings.push_back(
        "gnuplot was not found: the report has tables and CSV files but no drawings "
        "(Debian package gnuplot-nox)");
    return drawings;
  }
  for (const Plot& plot : plots)
    drawings[plot.name] = read_file(scratch.path() / (plot.name + ".svg"));
  for (const auto& [name, svg] : drawings) write_file_atomic(folder / (name + ".svg"), svg);
  return drawings;
}

}  // namespace

ReportResult write_report(const Study& study, const fs::path& folder) {
  ReportResult result;
  std::vector<std::string> missing;
  const std::vector<Plot> plots = study_plots(study, missing);
  write_file_atomic(folder / "fit.json", to_json(study).dump(2) + "\n");
  for (const Plot& plot : plots) {
    write_file_atomic(folder / (plot.name + ".csv"), plot_csv(plot));
    write_file_atomic(folder / (plot.name + ".gp"), gnuplot_script(plot, plot.name + ".svg"));
  }
  const Drawings drawings = draw(plots, folder, result);
  std::vector<std::string> notes = missing;
  notes.insert(notes.end(), result.warnings.begin(), result.warnings.end());
  const auto blocks = study_text(study, result.drawn ? plots : std::vector<Plot>(), notes);
  std::string html =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width\"><title>Scaling study</title><style>" +
      std::string(kStyle) + "</style></head><body>\n<h1>Scaling study</h1>\n";
  std::string markdown = "# Scaling study\n\n";
  for (const auto& block : blocks) {
    html += html_block(block, drawings);
    markdown += markdown_block(block);
  }
  write_file_atomic(folder / "report.md", markdown);
  write_file_atomic(folder / "report.html", html + "</body></html>\n");
  return result;
}

}  // namespace nf::analysis

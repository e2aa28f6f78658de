// See plot.h.
#include "analysis/plot.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/atomic_file.h"
#include "core/error.h"

extern char** environ;

namespace nf::analysis {
namespace {

constexpr const char* kPalette[] = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                    "#E69F00", "#56B4E9", "#7F3C8D", "#8C564B"};
constexpr int kMarkers[] = {7, 5, 9, 13, 11, 15, 6, 4, 8, 12, 10, 14};

std::string colour_of(int colour) {
  if (colour == kBlack) return "#000000";
  if (colour == kGrey) return "#9A9A9A";
  return kPalette[static_cast<size_t>(colour) % std::size(kPalette)];
}

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("''") : std::string(1, c);
  return out + "'";
}

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void add(double v) {
    if (!std::isfinite(v)) return;
    low = std::min(low, v);
    high = std::max(high, v);
  }
};

Range range_of(const Plot& plot, bool x_axis) {
  Range range;
  for (const auto& series : plot.series)
    for (const auto& p : series.points) {
      range.add(x_axis ? p.x : p.y);
      if (!x_axis && (series.style == PlotStyle::kBand || series.style == PlotStyle::kErrorBars)) {
        range.add(p.lo);
        range.add(p.hi);
      }
    }
  return range;
}

// 4 to 9 round values in the range.
std::vector<double> round_values(double low, double high) {
  const double rough = (high - low) / 6;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double multiple : {1.0, 2.0, 2.5, 5.0})
    if (multiple * power >= rough) {
      step = multiple * power;
      break;
    }
  std::vector<double> values;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high * (1 + 1e-12); ++k)
    values.push_back(k * step);
  return values;
}

std::string axis_script(char name, const PlotAxis& axis, Range range) {
  if (axis.low < axis.high) range = {axis.low, axis.high};
  std::string out = fmt::format("set {}label {} noenhanced\n", name, quoted(axis.label));
  if (!(range.low <= range.high)) range = {1, 10};
  double low = range.low, high = range.high;
  if (!(axis.low < axis.high)) {  // a margin around the data
    const double margin = axis.log ? std::pow(high / low, 0.05) * 1.01 : (high - low) * 0.06;
    low = axis.log ? low / margin : low - margin;
    high = axis.log ? high * margin : high + margin;
    if (!axis.log && low == high) {
      low -= 1;
      high += 1;
    }
  }
  out += fmt::format("set {}range [{:.10g}:{:.10g}]\n", name, low, high);
  if (axis.log) out += fmt::format("set logscale {}\n", name);
  std::string ticks;
  const auto tick = [&](const std::string& label, double at) {
    if (!ticks.empty()) ticks += ", ";
    ticks += fmt::format("{} {:.10g}", quoted(label), at);
  };
  if (!axis.ticks.empty()) {
    for (const auto& [at, label] : axis.ticks) tick(label, at);
  } else if (axis.log && high / low > 30) {
    return out + fmt::format("set format {} '10^{{%L}}'\nset m{}tics 10\n", name, name);
  } else {
    for (const double v : round_values(low, high)) tick(fmt::format("{:.6g}", v), v);
  }
  return out + fmt::format("set {}tics ({})\nunset m{}tics\n", name, ticks, name);
}

std::string style_script(const PlotSeries& s) {
  const std::string colour = quoted(colour_of(s.colour));
  const int marker = kMarkers[static_cast<size_t>(s.marker) % std::size(kMarkers)];
  switch (s.style) {
    case PlotStyle::kPoints:
      return fmt::format("using 1:2 with points pt {} ps 0.9 lc rgb {}", marker, colour);
    case PlotStyle::kLine:
      return fmt::format("using 1:2 with lines lw 2.2 lc rgb {}", colour);
    case PlotStyle::kDashed:
      return fmt::format("using 1:2 with lines lw 2.2 dt 2 lc rgb {}", colour);
    case PlotStyle::kLinePoints:
      return fmt::format("using 1:2 with linespoints lw 1.5 pt {} ps 0.8 lc rgb {}", marker,
                         colour);
    case PlotStyle::kBand:
      return fmt::format(
          "using 1:3:4 with filledcurves fs transparent solid 0.25 noborder lc rgb {}", colour);
    case PlotStyle::kErrorBars:
      return fmt::format("using 1:2:3:4 with yerrorbars pt {} ps 0.9 lw 1.5 lc rgb {}", marker,
                         colour);
  }
  return "";
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

// The exit status of gnuplot on a script; -1 when there is no gnuplot.
int run_gnuplot(const std::filesystem::path& script, const std::filesystem::path& log) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0666);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  std::string program = "gnuplot", argument = script.string();
  char* const argv[] = {program.data(), argument.data(), nullptr};
  pid_t child = 0;
  const int failed = posix_spawnp(&child, "gnuplot", &actions, nullptr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) return -1;
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) return -1;
  return status;
}

}  // namespace

std::string plot_csv(const Plot& plot) {
  std::string out = "series,x,y,lo,hi\n";
  for (const auto& s : plot.series) {
    const bool interval = s.style == PlotStyle::kBand || s.style == PlotStyle::kErrorBars;
    for (const auto& p : s.points)
      out += fmt::format("{},{},{},{},{}\n", csv_field(s.label), p.x, p.y,
                         interval ? fmt::format("{}", p.lo) : "",
                         interval ? fmt::format("{}", p.hi) : "");
  }
  return out;
}

std::string gnuplot_script(const Plot& plot, const std::string& svg) {
  std::string out = fmt::format(
      "set terminal svg size 900,540 dynamic enhanced font 'Helvetica,15' background rgb 'white' "
      "name '{}'\nset output {}\nset title {} noenhanced font ',17'\nset encoding utf8\n"
      "set key outside right top vertical Left reverse noenhanced samplen 2 spacing 1.15\n"
      "set border 3 lc rgb '#404040'\nset tics nomirror out\n"
      "set grid lc rgb '#E4E4E4' lt 1 lw 0.7\n",
      plot.name, quoted(svg), quoted(plot.title));
  out += axis_script('x', plot.x, range_of(plot, true));
  out += axis_script('y', plot.y, range_of(plot, false));
  int object = 1;
  for (const auto& region : plot.regions) {
    if (region.shaded)
      out += fmt::format(
          "set object {} rect from first {:.10g}, graph 0 to first {:.10g}, graph 1 behind fc rgb "
          "'#EEF3F8' fs solid noborder\n",
          object++, region.low, region.high);
    const double middle =
        plot.x.log ? std::sqrt(region.low * region.high) : (region.low + region.high) / 2;
    out += fmt::format(
        "set label {} at first {:.10g}, graph 0.96 center noenhanced tc rgb '#404040' "
        "font ',13'\n",
        quoted(region.label), middle);
  }
  std::string command;
  for (size_t i = 0; i < plot.series.size(); ++i) {
    const auto& s = plot.series[i];
    if (s.points.empty()) continue;
    out += fmt::format("$s{} << EOD\n", i);
    for (const auto& p : s.points)
      out += fmt::format("{:.10g} {:.10g} {:.10g} {:.10g}\n", p.x, p.y, p.lo, p.hi);
    out += "EOD\n";
    command += command.empty() ? "plot " : ", \\\n  ";
    command += fmt::format("$s{} {} {}", i, style_script(s),
                           s.label.empty() ? "notitle" : "title " + quoted(s.label));
  }
  return out + command + "\nunset output\n";
}

bool draw_plots(const std::vector<Plot>& plots, const std::filesystem::path& folder) {
  for (const Plot& plot : plots) {
    const auto script = folder / (plot.name + ".gp"), log = folder / (plot.name + ".log");
    write_file_atomic(script, gnuplot_script(plot, (folder / (plot.name + ".svg")).string()));
    const int status = run_gnuplot(script, log);
    if (status == -1) return false;
    if (status != 0)
      throw Error(ExitCode::kOther, script.string(), "gnuplot failed: " + read_file(log));
  }
  return true;
}

}  // namespace nf::analysis

// Plots drawn by gnuplot: a description, its script, its data as CSV, its SVG. Colours are those of
// Okabe and Ito (safe for colour-blind readers); markers differ without colour.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace nf::analysis {

struct PlotPoint {
  double x, y;
  double lo = 0, hi = 0;  // for bands and error bars
};

enum class PlotStyle { kPoints, kLine, kDashed, kLinePoints, kBand, kErrorBars };

struct PlotSeries {
  std::string label;  // "": not in the legend
  PlotStyle style = PlotStyle::kLine;
  int colour = 0;  // of the palette; -1: black; -2: grey
  int marker = 0;
  std::vector<PlotPoint> points;
};

struct PlotAxis {
  std::string label;  // with its unit
  bool log = false;
  double low = 0, high = 0;                           // equal: from the data
  std::vector<std::pair<double, std::string>> ticks;  // empty: chosen for the range
};

// A vertical strip with a name at its top.
struct PlotRegion {
  double low, high;
  std::string label;
  bool shaded = false;
};

struct Plot {
  std::string name;  // of the files
  std::string title, caption;
  PlotAxis x, y;
  std::vector<PlotSeries> series;
  std::vector<PlotRegion> regions;
};

constexpr int kBlack = -1, kGrey = -2;

std::string plot_csv(const Plot& plot);                                // series,x,y,lo,hi
std::string gnuplot_script(const Plot& plot, const std::string& svg);  // data inside

// Runs gnuplot on each script, in `folder`. False when there is no gnuplot; throws Error when it
// refuses a script.
bool draw_plots(const std::vector<Plot>& plots, const std::filesystem::path& folder);

}  // namespace nf::analysis

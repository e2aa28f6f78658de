// See replay.h.
#include "launch/replay.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/csv.h"
#include "analysis/statistics.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/options.h"

namespace nf::launch {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kOffGrid = 0.25;  // of a notch: printed rates are rounded

struct Row {
  std::vector<std::string> group;
  double size, images, rate;
  double loss;  // +infinity: diverged
};

class RowReader {
 public:
  RowReader(const std::string& text, const std::string& name, const ReplayColumns& columns)
      : reader_(text, name), errors_(name), name_(name), columns_(columns) {}

  std::vector<Row> read() {
    std::vector<std::string_view> fields;
    if (!reader_.next(fields))
      throw Error(ExitCode::kData, name_, "the table is empty", "give a header and rows");
    header_.assign(fields.begin(), fields.end());
    find_columns();
    std::vector<Row> rows;
    while (reader_.next(fields)) {
      if (fields.size() != header_.size())
        errors_.add(reader_.line(), 0,
                    fmt::format("{} fields, the header has {}", fields.size(), header_.size()));
      else
        rows.push_back(read_row(fields));
    }
    errors_.throw_if_any("correct these places; nothing was read");
    if (rows.empty()) throw Error(ExitCode::kData, name_, "the table has a header and no rows");
    return rows;
  }

 private:
  size_t place(const std::string& column) {
    const auto found = std::find(header_.begin(), header_.end(), column);
    if (found == header_.end()) {
      const std::string near = nearest(column, header_);
      errors_.add(1, 0,
                  "no column '" + column + "'" +
                      (near.empty() ? std::string() : "; did you mean '" + near + "'?"));
    }
    return static_cast<size_t>(found - header_.begin());
  }
  void find_columns() {
    size_ = place(columns_.size);
    images_ = place(columns_.images);
    rate_ = place(columns_.rate);
    loss_ = place(columns_.loss);
    for (const auto& column : columns_.group) groups_.push_back(place(column));
    errors_.throw_if_any(fmt::format("the columns are: {}", fmt::join(header_, ", ")));
  }
  double number(const std::vector<std::string_view>& fields, size_t at) {
    const auto value = analysis::parse_number(fields[at]);
    if (!value || !(*value > 0) || !std::isfinite(*value))
      errors_.add(reader_.line(), at + 1,
                  fmt::format("{}: '{}' is not a positive number", header_[at], fields[at]));
    return value.value_or(1);
  }
  // A diverged run has no loss, or none that is a number.
  double loss(const std::vector<std::string_view>& fields) {
    if (fields[loss_].empty()) return kInfinity;
    const auto value = analysis::parse_number(fields[loss_]);
    if (!value)
      errors_.add(reader_.line(), loss_ + 1,
                  fmt::format("{}: '{}' is not a number", header_[loss_], fields[loss_]));
    return value && std::isfinite(*value) && *value > 0 ? *value : kInfinity;
  }
  Row read_row(const std::vector<std::string_view>& fields) {
    Row row{
        {}, number(fields, size_), number(fields, images_), number(fields, rate_), loss(fields)};
    for (const size_t at : groups_) row.group.emplace_back(fields[at]);
    return row;
  }

  analysis::CsvReader reader_;
  analysis::InputErrors errors_;
  std::string name_;
  const ReplayColumns& columns_;
  std::vector<std::string> header_;
  size_t size_ = 0, images_ = 0, rate_ = 0, loss_ = 0;
  std::vector<size_t> groups_;
};

// How far a rate lies from the nearest notch.
double off_grid(const analysis::RateGrid& grid, double rate) {
  const double k = grid.position(rate);
  return std::fabs(k - std::round(k));
}

double choose_anchor(const std::vector<Row>& rows, double factor) {
  const analysis::RateGrid usual{1.6, factor};
  std::vector<double> rates;
  for (const auto& row : rows) rates.push_back(row.rate);
  if (std::all_of(rates.begin(), rates.end(),
                  [&](double rate) { return off_grid(usual, rate) < kOffGrid; }))
    return usual.anchor;
  std::sort(rates.begin(), rates.end());
  return rates[rates.size() / 2];
}

using CellKey = std::tuple<double, double, double>;  // size x images, size, images
using Losses = std::map<int, std::vector<double>>;

ReplayCell make_cell(const CellKey& key, const Losses& by_notch) {
  ReplayCell cell{std::get<1>(key), std::get<2>(key), {}};
  for (const auto& [k, losses] : by_notch) {
    double logs = 0;
    for (const double loss : losses) logs += std::log(loss);
    cell.losses[k] =
        losses.size() == 1 ? losses[0] : std::exp(logs / static_cast<double>(losses.size()));
  }
  return cell;
}

}  // namespace

ReplayTable read_replay_table(const std::filesystem::path& file, const ReplayColumns& columns,
                              std::optional<double> anchor, double factor) {
  const std::string text = read_file(file);
  const auto rows = RowReader(text, file.string(), columns).read();
  ReplayTable table;
  table.grid = {anchor ? *anchor : choose_anchor(rows, factor), factor};
  std::map<std::vector<std::string>, std::map<CellKey, Losses>> groups;
  size_t left_out = 0;
  bool any = false;
  for (const auto& row : rows) {
    if (off_grid(table.grid, row.rate) >= kOffGrid) {
      ++left_out;
      continue;
    }
    const int k = static_cast<int>(std::lround(table.grid.position(row.rate)));
    table.k_low = any ? std::min(table.k_low, k) : k;
    table.k_high = any ? std::max(table.k_high, k) : k;
    any = true;
    groups[row.group][{row.size * row.images, row.size, row.images}][k].push_back(row.loss);
  }
  const std::string grid = fmt::format("{} x {}^k", table.grid.anchor, factor);
  if (!any)
    throw Error(ExitCode::kData, file.string(), "no learning rate lies on the grid " + grid,
                "give another --anchor or --factor");
  if (left_out > 0)
    table.warnings.push_back(
        fmt::format("{} of {} rows left out: their rates lie between the "
                    "notches of {}",
                    left_out, rows.size(), grid));
  for (const auto& [values, cells] : groups) {
    ReplayGroup group{values, {}};
    for (const auto& [key, losses] : cells) group.cells.push_back(make_cell(key, losses));
    table.groups.push_back(std::move(group));
  }
  return table;
}

std::vector<ReplayedCell> replay_group(const ReplayGroup& group, const TuningRules& rules) {
  std::vector<TuningCell> cells;
  std::vector<const ReplayCell*> sources;
  std::vector<int> best;
  for (const auto& cell : group.cells) {
    const auto least =
        std::min_element(cell.losses.begin(), cell.losses.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    if (!std::isfinite(least->second)) continue;
    cells.push_back({cell.size, cell.images});
    sources.push_back(&cell);
    best.push_back(least->first);
  }
  std::vector<CellTrials> trials(cells.size());
  std::vector<ReplayedCell> replayed;
  for (size_t i = 0; i < cells.size(); ++i) {
    const StartRate start = start_rate(cells, trials, rules, i);
    CellVerdict verdict = judge_trials(trials[i], start, rules, i == 0);
    while (!verdict.finished) {
      for (const int k : verdict.next) {
        const auto found = sources[i]->losses.find(k);
        trials[i][k] = found == sources[i]->losses.end() ? kInfinity : found->second;
      }
      verdict = judge_trials(trials[i], start, rules, i == 0);
    }
    const double regret =
        verdict.best ? trials[i][*verdict.best] - sources[i]->losses.at(best[i]) : kInfinity;
    replayed.push_back({cells[i].size, cells[i].epochs, static_cast<int>(trials[i].size()),
                        verdict.best, best[i], regret, verdict.not_bracketed});
  }
  return replayed;
}

Json replay_report(const ReplayTable& table, Policy policy) {
  TuningRules rules{policy, table.grid, table.k_low, table.k_high, true, true};
  Json cells = Json::array();
  double trials = 0, regret = 0;
  int exact = 0, within_one = 0, chosen = 0, unchosen = 0, open = 0;
  for (const auto& group : table.groups)
    for (const auto& c : replay_group(group, rules)) {
      Json cell = {{"size", c.size}, {"images", c.images}, {"trials", c.trials}};
      if (table.groups.size() > 1) cell["group"] = fmt::format("{}", fmt::join(group.values, ","));
      cell["chosen"] = c.chosen ? Json(table.grid.rate(*c.chosen)) : Json();
      cell["best_in_table"] = table.grid.rate(c.best_in_table);
      cell["regret"] = c.chosen ? Json(c.regret) : Json();
      cell["not_bracketed"] = c.not_bracketed;
      cells.push_back(std::move(cell));
      trials += c.trials;
      open += c.not_bracketed ? 1 : 0;
      unchosen += c.chosen ? 0 : 1;
      if (!c.chosen) continue;
      ++chosen;
      regret += c.regret;
      exact += *c.chosen == c.best_in_table ? 1 : 0;
      within_one += std::abs(*c.chosen - c.best_in_table) <= 1 ? 1 : 0;
    }
  if (cells.empty())
    throw Error(ExitCode::kData, "replay", "every row diverged: there is nothing to choose");
  const auto count = static_cast<double>(cells.size());
  std::vector<std::string> warnings = table.warnings;
  if (open > 0)
    warnings.push_back(
        fmt::format("not_bracketed: the chosen rate of {} of {} cells lies at an "
                    "end of the table's range",
                    open, cells.size()));
  if (unchosen > 0)
    warnings.push_back(
        fmt::format("{} cells found no finite loss; mean_regret leaves them out", unchosen));
  Json report = {{"anchor", table.grid.anchor}, {"factor", table.grid.factor},
                 {"cells", std::move(cells)},   {"mean_trials", trials / count},
                 {"exact", exact / count},      {"within_one", within_one / count}};
  report["mean_regret"] = chosen > 0 ? Json(regret / chosen) : Json();
  report["warnings"] = warnings;
  return report;
}

}  // namespace nf::launch

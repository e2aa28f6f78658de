// See controller.h.
#include "launch/controller.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "analysis/lr_trend.h"
#include "core/check.h"
#include "core/error.h"

namespace nf::launch {
namespace {

bool tried(const CellTrials& trials, int k) { return trials.count(k) > 0; }

// In order of notches, so of equal losses the smaller rate wins.
std::optional<int> best_notch(const CellTrials& trials) {
  std::optional<int> best;
  for (const auto& [k, loss] : trials)
    if (std::isfinite(loss) && (!best || loss < trials.at(*best))) best = k;
  return best;
}

// log2 of the cell's optimum, refined where both neighbours are known.
double refined_log2_rate(const CellTrials& trials, const analysis::RateGrid& grid) {
  analysis::Cell cell;
  for (const auto& [k, loss] : trials)
    cell.trials.push_back({grid.rate(k), std::isfinite(loss) ? std::log(loss) : loss, loss, 0, {}});
  analysis::judge_cell(cell, grid);
  return cell.log2_rate;
}

// A tried cell beside the new one, as far as the start needs it.
struct Known {
  size_t cell;
  int best;
};

// |ln size ratio| + |ln epochs ratio|; cells that are larger in a direction come after all others.
size_t nearest_known(const std::vector<TuningCell>& cells, const std::vector<Known>& known,
                     size_t index) {
  const TuningCell& here = cells[index];
  size_t nearest = 0;
  std::pair<bool, double> least = {true, std::numeric_limits<double>::infinity()};
  for (size_t i = 0; i < known.size(); ++i) {
    const TuningCell& other = cells[known[i].cell];
    const std::pair<bool, double> distance = {other.size > here.size || other.epochs > here.epochs,
                                              std::fabs(std::log(other.size / here.size)) +
                                                  std::fabs(std::log(other.epochs / here.epochs))};
    if (distance < least) {
      least = distance;
      nearest = i;
    }
  }
  return nearest;
}

// The next notch outward from the best one (from all of them while every trial diverged: a smaller
// rate is the remedy); nothing when the bracket is closed.
std::optional<int> next_of_bracket(const CellTrials& trials, const TuningRules& rules) {
  if (trials.size() >= static_cast<size_t>(kMostTrials)) return std::nullopt;
  const auto best = best_notch(trials);
  const int below = (best ? *best : trials.begin()->first) - 1;
  const int above = (best ? *best : trials.rbegin()->first) + 1;
  if (below >= rules.k_low && !tried(trials, below)) return below;
  if (above <= rules.k_high && !tried(trials, above)) return above;
  return std::nullopt;
}

// So near to the start the prediction tells no side, and the smaller rate is tried. Cells that all
// chose one notch predict nearly that notch; were it from above, each would try the larger rate,
// and the sweep would never find out that the optimum falls (docs/decisions/013).
constexpr double kNoSide = 0.05;

// The two notches of two_trial: the start, and its neighbour on the side of the prediction (the
// smaller rate where it tells no side), turned around at an end of the range.
std::vector<int> two_notches(const StartRate& start, const TuningRules& rules) {
  int second = start.prediction > start.k + kNoSide ? start.k + 1 : start.k - 1;
  if (second < rules.k_low || second > rules.k_high) second = 2 * start.k - second;
  if (second < rules.k_low || second > rules.k_high) return {start.k};
  return {start.k, second};
}

}  // namespace

Policy parse_policy(const std::string& text) {
  if (text == "full") return Policy::kFull;
  if (text == "two_trial") return Policy::kTwoTrial;
  if (text == "bracket") return Policy::kBracket;
  throw Error(ExitCode::kUsage, "policy", "'" + text + "' is no policy",
              "full, two_trial or bracket");
}

std::vector<size_t> needed_cells(const std::vector<TuningCell>& cells, const TuningRules& rules,
                                 size_t index) {
  std::vector<size_t> needed;
  if (rules.policy == Policy::kFull) return needed;
  for (size_t i = 0; i < index; ++i)
    if (rules.in_order ||
        (cells[i].size <= cells[index].size && cells[i].epochs <= cells[index].epochs))
      needed.push_back(i);
  return needed;
}

StartRate start_rate(const std::vector<TuningCell>& cells, const std::vector<CellTrials>& trials,
                     const TuningRules& rules, size_t index) {
  const auto clamped = [&](double k) {
    return std::clamp(k, static_cast<double>(rules.k_low), static_cast<double>(rules.k_high));
  };
  std::vector<Known> known;
  for (const size_t i : needed_cells(cells, rules, index))
    if (const auto best = best_notch(trials[i])) known.push_back({i, *best});
  if (known.empty()) return {static_cast<int>(clamped(0)), 0};
  const double near = known[nearest_known(cells, known, index)].best;
  if (known.size() < 3) return {static_cast<int>(clamped(near)), near};
  std::vector<analysis::RatePoint> points;
  for (const auto& k : known)
    points.push_back(
        {cells[k.cell].size, cells[k.cell].epochs, refined_log2_rate(trials[k.cell], rules.grid)});
  const auto trend = analysis::fit_damped_trend(points);
  const double prediction =
      rules.grid.position(std::exp2(trend.log2_rate(cells[index].size, cells[index].epochs)));
  const double start = clamped(std::clamp(prediction, near - 2, near + 2));
  return {static_cast<int>(std::lround(start)), prediction};
}

CellVerdict judge_trials(const CellTrials& trials, const StartRate& start, const TuningRules& rules,
                         bool first) {
  CellVerdict verdict;
  verdict.start = start.k;
  verdict.best = best_notch(trials);
  for (const auto& [k, loss] : trials) verdict.failed = verdict.failed || std::isnan(loss);
  const Policy policy = first && rules.bracket_first && rules.policy != Policy::kFull
                            ? Policy::kBracket
                            : rules.policy;
  std::vector<int> wanted = {start.k};
  if (policy == Policy::kTwoTrial) wanted = two_notches(start, rules);
  if (policy == Policy::kFull) {
    wanted.clear();
    for (int k = rules.k_low; k <= rules.k_high; ++k) wanted.push_back(k);
  }
  for (const int k : wanted)
    if (!tried(trials, k)) verdict.next.push_back(k);
  // two_trial goes on only while nothing but divergence was seen: a cell without a value helps
  // nobody.
  const bool more = policy == Policy::kBracket || (policy == Policy::kTwoTrial && !verdict.best);
  if (verdict.next.empty() && more)
    if (const auto k = next_of_bracket(trials, rules)) verdict.next.push_back(*k);
  verdict.finished = verdict.next.empty() && !verdict.failed;
  if (verdict.failed && policy != Policy::kFull) verdict.next.clear();
  verdict.not_bracketed = verdict.finished && verdict.best &&
                          (*verdict.best == rules.k_low || *verdict.best == rules.k_high);
  return verdict;
}

std::vector<CellVerdict> judge_sweep(const std::vector<TuningCell>& cells,
                                     const std::vector<CellTrials>& trials,
                                     const TuningRules& rules) {
  NF_CHECK(cells.size() == trials.size());
  std::vector<CellVerdict> verdicts;
  for (size_t i = 0; i < cells.size(); ++i) {
    bool waiting = false;
    for (const size_t j : needed_cells(cells, rules, i))
      waiting = waiting || !(verdicts[j].finished || verdicts[j].failed);
    if (waiting) {
      verdicts.emplace_back().waiting = true;
      verdicts.back().best = best_notch(trials[i]);
      continue;
    }
    verdicts.push_back(judge_trials(trials[i], start_rate(cells, trials, rules, i), rules, i == 0));
  }
  return verdicts;
}

void set_range(TuningRules& rules, double low, double high) {
  rules.k_low = static_cast<int>(std::ceil(rules.grid.position(low) - 0.01));
  rules.k_high = static_cast<int>(std::floor(rules.grid.position(high) + 0.01));
  if (rules.k_low > rules.k_high)
    throw Error(ExitCode::kUsage, "learning rates",
                fmt::format("no notch of {} x {}^k lies in [{}, {}]", rules.grid.anchor,
                            rules.grid.factor, low, high));
}

}  // namespace nf::launch

// The controller against a fake trainer: policies by hand-made cases; then whole sweeps with
// results out of order, kills at any moment and two controllers at once give the decisions of the
// undisturbed sweep, and no trial is trained twice.
#include "launch/controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "core/rng.h"
#include "tests/launch/fake_trainer.h"

namespace nf::launch {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
constexpr double kDiverged = std::numeric_limits<double>::infinity();

std::vector<CellTrials> none(size_t cells) { return std::vector<CellTrials>(cells); }
TuningRules rules_of(Policy policy) {
  TuningRules rules;
  rules.policy = policy;
  return rules;
}
CellVerdict judge(Policy policy, const CellTrials& trials, StartRate start = {}) {
  return judge_trials(trials, start, rules_of(policy), false);
}

TEST(Controller, FullAsksForEveryNotch) {
  const auto verdicts = judge_sweep(test::fake_cells(), none(20), rules_of(Policy::kFull));
  for (const auto& v : verdicts) EXPECT_THAT(v.next, ElementsAre(-6, -5, -4, -3, -2, -1, 0, 1, 2));
  EXPECT_THAT(judge(Policy::kFull, {{-6, 3.0}, {0, 2.0}}).next,
              ElementsAre(-5, -4, -3, -2, -1, 1, 2));
}

TEST(Controller, TwoTrialsTakeTheSideOfThePrediction) {
  EXPECT_THAT(judge(Policy::kTwoTrial, {}, {0, 0}).next, ElementsAre(0, -1));
  EXPECT_THAT(judge(Policy::kTwoTrial, {}, {-2, -1.7}).next, ElementsAre(-2, -1));
  EXPECT_THAT(judge(Policy::kTwoTrial, {}, {-2, -2.3}).next, ElementsAre(-2, -3));
  EXPECT_THAT(judge(Policy::kTwoTrial, {}, {-6, -9}).next, ElementsAre(-6, -5)) << "end of range";
  EXPECT_THAT(judge(Policy::kTwoTrial, {}, {-1, -0.97}).next, ElementsAre(-1, -2))
      << "too near to tell a side";
  const auto done = judge(Policy::kTwoTrial, {{0, 2.5}, {-1, 2.4}});
  EXPECT_TRUE(done.finished);
  EXPECT_EQ(done.best, -1);
}

TEST(Controller, BracketRunsTheLowerNeighbourFirst) {
  EXPECT_THAT(judge(Policy::kBracket, {}).next, ElementsAre(0));
  EXPECT_THAT(judge(Policy::kBracket, {{0, 2.5}}).next, ElementsAre(-1));
  EXPECT_THAT(judge(Policy::kBracket, {{0, 2.5}, {-1, 2.4}}).next, ElementsAre(-2));
  EXPECT_THAT(judge(Policy::kBracket, {{0, 2.5}, {-1, 2.6}}).next, ElementsAre(1));
  const auto done = judge(Policy::kBracket, {{0, 2.5}, {-1, 2.6}, {1, kDiverged}});
  EXPECT_TRUE(done.finished) << "divergence closes the bracket on its side";
  EXPECT_EQ(done.best, 0);
  EXPECT_FALSE(done.not_bracketed);
}

TEST(Controller, TiesTakeTheSmallerRate) {
  const auto v = judge(Policy::kBracket, {{0, 2.5}, {-1, 2.5}});
  EXPECT_EQ(v.best, -1);
  EXPECT_THAT(v.next, ElementsAre(-2));
}

TEST(Controller, TheEndOfTheRangeIsNotBracketed) {
  const CellTrials falling = {{2, 2.1}, {1, 2.2}};
  EXPECT_TRUE(judge(Policy::kBracket, falling, {1, 1}).not_bracketed);
  EXPECT_TRUE(judge(Policy::kTwoTrial, falling, {1, 1.2}).not_bracketed);
}

TEST(Controller, DivergenceIsFollowedDownwards) {
  for (const Policy policy : {Policy::kTwoTrial, Policy::kBracket}) {
    CellTrials trials = {{0, kDiverged}, {-1, kDiverged}};
    EXPECT_THAT(judge(policy, trials).next, ElementsAre(-2));
    trials[-2] = 3.0;
    EXPECT_EQ(judge(policy, trials).finished, policy == Policy::kTwoTrial);
  }
  CellTrials hopeless;
  for (int k = -6; k <= 1; ++k) hopeless[k] = kDiverged;
  const auto v = judge(Policy::kBracket, hopeless);
  EXPECT_TRUE(v.finished) << "8 trials are enough";
  EXPECT_FALSE(v.best);
}

TEST(Controller, AFailedTrialStopsItsCellOnly) {
  const std::vector<TuningCell> cells = {{1, 0.25}, {1, 0.5}};
  const std::vector<CellTrials> trials = {{{0, std::nan("")}}, {}};
  const auto verdicts = judge_sweep(cells, trials, rules_of(Policy::kTwoTrial));
  EXPECT_TRUE(verdicts[0].failed);
  EXPECT_FALSE(verdicts[0].finished);
  EXPECT_THAT(verdicts[0].next, IsEmpty());
  EXPECT_THAT(verdicts[1].next, ElementsAre(0, -1));
}

TEST(Controller, FewCellsStartFromTheNearestOne) {
  const std::vector<TuningCell> cells = {{1, 0.25}, {2, 0.25}, {2, 0.5}};
  const std::vector<CellTrials> trials = {{{0, 2.0}, {-1, 2.1}}, {{0, 2.0}, {-1, 1.9}}, {}};
  const StartRate start = start_rate(cells, trials, rules_of(Policy::kTwoTrial), 2);
  EXPECT_EQ(start.k, -1) << "the second cell lies nearer";
  EXPECT_EQ(start.prediction, -1);
}

// The damped trend by its normal equations, solved with another method (Gauss elimination).
TEST(Controller, ThreeCellsStartFromTheDampedTrend) {
  const std::vector<TuningCell> cells = {{1, 1}, {1, 2}, {2, 1}, {2, 2}};
  const std::vector<CellTrials> trials = {
      {{0, 2.0}, {-1, 2.1}}, {{-1, 1.9}, {-2, 2.0}}, {{-1, 1.8}, {0, 1.9}}, {}};
  // Points (f, e, y): (0,0,y0), (0,1,y0-1), (1,0,y0-1). By symmetry c1 = c2 = c:
  // 3 c0 + 2 c = 3 y0 - 2 and c0 + c + 3 c = y0 - 1, so c = -0.1 and c0 = y0 - 0.6.
  const StartRate start = start_rate(cells, trials, rules_of(Policy::kTwoTrial), 3);
  EXPECT_NEAR(start.prediction, -0.8, 1e-9);
  EXPECT_EQ(start.k, -1);
  EXPECT_THAT(judge(Policy::kTwoTrial, {}, start).next, ElementsAre(-1, 0))
      << "the prediction lies above the start";
}

TEST(Controller, ACellWaitsOnlyForWhatItNeeds) {
  const std::vector<TuningCell> cells = {{1, 1}, {1, 2}, {2.1, 1}, {2.1, 2}};
  auto trials = none(4);
  auto v = judge_sweep(cells, trials, rules_of(Policy::kTwoTrial));
  EXPECT_TRUE(v[1].waiting && v[2].waiting && v[3].waiting);
  trials[0] = {{0, 2.0}, {-1, 2.1}};
  v = judge_sweep(cells, trials, rules_of(Policy::kTwoTrial));
  EXPECT_FALSE(v[1].waiting || v[2].waiting);
  EXPECT_TRUE(v[3].waiting);
}

TEST(Controller, RangesAreNotches) {
  TuningRules rules;
  set_range(rules, 1.6 / 64, 6.4);
  EXPECT_EQ(rules.k_low, -6);
  EXPECT_EQ(rules.k_high, 2);
  set_range(rules, 0.11, 0.75);
  EXPECT_EQ(rules.k_low, -3);
  EXPECT_EQ(rules.k_high, -2);
  EXPECT_THROW(set_range(rules, 0.81, 1.5), Error);
}

// A sweep with `slots` workers whose trials end in random order. kills: all running trials are lost
// from time to time, and what the controllers knew with them. Several controllers take turns; each
// sees the table as it is, a trial that runs is locked.
struct Outcome {
  std::vector<CellTrials> trials;
  int trained_twice = 0, kills = 0;
};
Outcome simulate(Policy policy, size_t slots, uint64_t seed, bool kills) {
  const auto cells = test::fake_cells();
  const test::FakeTrainer trainer;
  const TuningRules rules = rules_of(policy);
  PositionRng random(seed, Stream::kTest, 0);
  Outcome out{none(cells.size())};
  std::map<std::pair<size_t, int>, int> finished;
  std::vector<std::pair<size_t, int>> running;
  for (;;) {
    const auto verdicts = judge_sweep(cells, out.trials, rules);
    for (size_t i = 0; i < cells.size(); ++i)
      for (const int k : verdicts[i].next) {
        const std::pair<size_t, int> trial = {i, k};
        const bool locked = std::find(running.begin(), running.end(), trial) != running.end();
        if (!locked && running.size() < slots) running.push_back(trial);
      }
    if (running.empty()) break;
    if (kills && random.below(4) == 0) {
      ++out.kills;
      running.clear();
      continue;
    }
    const size_t which = random.below(running.size());
    const auto [cell, k] = running[which];
    running.erase(running.begin() + static_cast<ptrdiff_t>(which));
    if (++finished[{cell, k}] > 1) ++out.trained_twice;
    out.trials[cell][k] = trainer.loss(cells[cell], rules.grid, k);
  }
  return out;
}

class Sweeps : public testing::TestWithParam<Policy> {};

TEST_P(Sweeps, OrderKillsAndWorkersChangeNoDecision) {
  const Outcome calm = simulate(GetParam(), 1, 1, false);
  int kills = 0;
  for (uint64_t seed = 1; seed <= 25; ++seed)
    for (const size_t slots : {1, 2, 7}) {
      const Outcome o = simulate(GetParam(), slots, seed, true);
      EXPECT_EQ(o.trials, calm.trials) << "seed " << seed << ", " << slots << " slots";
      EXPECT_EQ(o.trained_twice, 0);
      kills += o.kills;
    }
  EXPECT_GT(kills, 100);
}

TEST_P(Sweeps, FindsTheBestRates) {
  const auto cells = test::fake_cells();
  const test::FakeTrainer trainer;
  const TuningRules rules = rules_of(GetParam());
  const Outcome o = simulate(GetParam(), 2, 5, false);
  const auto verdicts = judge_sweep(cells, o.trials, rules);
  int exact = 0;
  size_t diverged = 0, trials = 0;
  for (size_t i = 0; i < cells.size(); ++i) {
    int best = rules.k_low;
    for (int k = rules.k_low; k <= rules.k_high; ++k)
      if (trainer.loss(cells[i], rules.grid, k) < trainer.loss(cells[i], rules.grid, best))
        best = k;
    ASSERT_TRUE(verdicts[i].finished && verdicts[i].best);
    exact += *verdicts[i].best == best ? 1 : 0;
    EXPECT_LE(std::abs(*verdicts[i].best - best), 1);
    trials += o.trials[i].size();
    for (const auto& [k, loss] : o.trials[i]) diverged += std::isinf(loss) ? 1 : 0;
  }
  if (GetParam() == Policy::kTwoTrial) {
    EXPECT_EQ(trials, 2 * cells.size());
    EXPECT_GE(exact, 16);
  } else {
    EXPECT_EQ(exact, static_cast<int>(cells.size()));
    EXPECT_GT(diverged, 0u) << "the surface has a cliff, and it must have been met";
  }
}

// The first cells all choose -1 and the refined optimum of the first one lies above it: the
// optimum's fall must still be found.
TEST(Controller, TwoTrialsDoNotLockIn) {
  std::vector<TuningCell> cells;
  for (double epochs = 1; epochs < 1e8; epochs *= 2) cells.push_back({1, epochs});
  TuningRules rules = rules_of(Policy::kTwoTrial);
  rules.in_order = rules.bracket_first = true;
  auto trials = none(cells.size());
  const auto best = [&](size_t i) { return -1.1 - 0.06 * static_cast<double>(i); };
  for (size_t i = 0; i < cells.size(); ++i)
    for (;;) {
      const auto v = judge_sweep(cells, trials, rules)[i];
      if (v.finished) {
        EXPECT_NEAR(*v.best, best(i), 1.01) << "cell " << i;
        break;
      }
      for (const int k : v.next) trials[i][k] = 2 + 0.01 * std::pow(k - best(i), 2);
    }
}

INSTANTIATE_TEST_SUITE_P(Policies, Sweeps,
                         testing::Values(Policy::kFull, Policy::kTwoTrial, Policy::kBracket));

TEST(Controller, TwoControllersAtOnceDecideAlike) {
  const auto cells = test::fake_cells();
  const Outcome o = simulate(Policy::kBracket, 3, 9, false);
  // At every stage of the table, in any order of rows, both name the same next runs.
  std::vector<std::pair<size_t, int>> rows;
  for (size_t i = 0; i < cells.size(); ++i)
    for (const auto& [k, loss] : o.trials[i]) rows.push_back({i, k});
  PositionRng random(3, Stream::kTest, 1);
  for (size_t count = 0; count <= rows.size(); count += 3) {
    auto first = none(cells.size()), second = none(cells.size());
    std::vector<std::pair<size_t, int>> part(rows.begin(),
                                             rows.begin() + static_cast<ptrdiff_t>(count));
    for (const auto& [i, k] : part) first[i][k] = o.trials[i].at(k);
    for (size_t n = part.size(); n > 1; --n) std::swap(part[n - 1], part[random.below(n)]);
    for (const auto& [i, k] : part) second[i][k] = o.trials[i].at(k);
    const auto a = judge_sweep(cells, first, rules_of(Policy::kBracket));
    const auto b = judge_sweep(cells, second, rules_of(Policy::kBracket));
    for (size_t i = 0; i < cells.size(); ++i) {
      EXPECT_EQ(a[i].next, b[i].next);
      EXPECT_EQ(a[i].start, b[i].start);
    }
  }
}

}  // namespace
}  // namespace nf::launch

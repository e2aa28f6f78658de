// Every value of golden/scaling/golden.json (made by an independent reference) at the tolerances of
// the study's specification.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "analysis/accounting.h"
#include "analysis/compare.h"
#include "analysis/csv.h"
#include "analysis/fit_json.h"
#include "analysis/isoflop.h"
#include "analysis/learning_curve.h"
#include "core/atomic_file.h"
#include "tests/support/paths.h"

namespace nf::analysis {
namespace {

std::filesystem::path table(const std::string& name) { return test::golden("scaling/" + name); }

const Json& golden() {
  static const Json json = Json::parse(read_file(table("golden.json")));
  return json;
}

double value(const Json& json, const char* key) { return json.at(key).get<double>(); }

// |a / b - 1| <= tolerance
void expect_relative(double a, double b, double tolerance, const std::string& what) {
  EXPECT_LE(std::fabs(a - b), tolerance * std::fabs(b)) << what << ": " << a << " for " << b;
}

void expect_objective(double ours, double reference, const std::string& what) {
  EXPECT_LE(ours, reference * (1 + 1e-6) + 1e-12) << what;
}

double named(const CurveFit& fit, const std::string& name) {
  for (const auto& [key, v] : fit.named())
    if (key == name) return v;
  ADD_FAILURE() << "no " << name;
  return NAN;
}

CurveData read_curve(const std::string& file, const std::string& x, const std::string& y,
                     const std::vector<Condition>& where = {}) {
  Columns columns = read_columns(table(file), {x, y}, where);
  return {columns.values[0], columns.values[1]};
}

TEST(GoldenPowerLaw, CleanCurve) {
  const Json& g = golden().at("power_law_1d").at("clean");
  const CurveFit fit =
      fit_curve(read_curve("power_law_1d.csv", "x", "loss_clean"), Form::kPowerLawConstant);
  for (const char* key : {"E", "A", "alpha"})
    expect_relative(named(fit, key), value(g, key), 1e-5, key);
  expect_objective(fit.objective, value(g, "obj"), "clean");
  expect_relative(fit.predict(1e12),
                  value(golden().at("power_law_1d").at("predict_at_1e12"), "clean"), 1e-4, "1e12");
}

TEST(GoldenPowerLaw, NoiseAndOutliersAtEveryDelta) {
  const Json& all = golden().at("power_law_1d");
  const CurveData data = read_curve("power_law_1d.csv", "x", "loss_noisy");
  for (const auto& [key, delta] :
       {std::pair("noisy_delta_0.001", 1e-3), std::pair("noisy_delta_0.01", 1e-2),
        std::pair("noisy_delta_0.1", 1e-1)}) {
    const Json& g = all.at(key);
    const CurveFit fit = fit_curve(data, Form::kPowerLawConstant, delta);
    expect_objective(fit.objective, value(g, "obj"), key);
    expect_relative(named(fit, "E"), value(g, "E"), 1e-3, key);
    expect_relative(named(fit, "alpha"), value(g, "alpha"), 1e-3, key);
    expect_relative(fit.predict(1e12), value(all.at("predict_at_1e12"), key), 1e-4, key);
  }
  const Json& g = all.at("noisy_pl_delta_0.001");
  const CurveFit pl = fit_curve(data, Form::kPowerLaw);
  expect_objective(pl.objective, value(g, "obj"), "pl");
  expect_relative(named(pl, "A"), value(g, "A"), 1e-5, "A");
  expect_relative(named(pl, "alpha"), value(g, "alpha"), 1e-5, "alpha");
}

TEST(GoldenVisionCurves, BothPowerLawsOnEveryCurve) {
  ASSERT_EQ(golden().at("vision_curves").size(), 24u);
  for (const Json& g : golden().at("vision_curves")) {
    const std::vector<Condition> fitted = {
        {"Task", g.at("task")}, {"Model", g.at("model")}, {"Training", "1"}};
    const std::vector<Condition> hidden = {
        {"Task", g.at("task")}, {"Model", g.at("model")}, {"Training", "0"}};
    const CurveData data = read_curve("vision_curves_subset.csv", "Seen Examples", "Loss", fitted);
    const CurveData rest = read_curve("vision_curves_subset.csv", "Seen Examples", "Loss", hidden);
    ASSERT_EQ(data.size(), g.at("n_fit").get<size_t>());
    ASSERT_EQ(rest.size(), g.at("n_test").get<size_t>());
    for (const Form form : {Form::kPowerLaw, Form::kPowerLawConstant}) {
      const std::string key(form_name(form));
      const std::string what = g.at("task").get<std::string>() + " " + key;
      const Json& expected = g.at(key);
      const CurveFit fit = fit_curve(data, form);
      expect_objective(fit.objective, value(expected, "obj"), what);
      expect_relative(named(fit, "alpha"), value(expected, "alpha"), 1e-3, what + " alpha");
      if (form == Form::kPowerLawConstant)
        expect_relative(named(fit, "E"), value(expected, "E"), 1e-3, what + " E");
      expect_relative(fit.predict(value(g, "x_pred")), value(expected, "pred"), 1e-4, what);
      std::vector<double> predicted;
      for (const double x : rest.x()) predicted.push_back(fit.predict(x));
      expect_relative(rmsle(predicted, rest.y()), value(expected, "rmsle_2x"), 1e-3, what);
    }
  }
}

TEST(GoldenRegions, ThreeRegions) {
  const Json& g = golden().at("three_regions");
  const CurveData data = read_curve("three_regions.csv", "x", "loss");
  const CurveFit fit = fit_curve(data, Form::kSigmoid);
  for (const char* key : {"E", "E0", "eta", "alpha", "A"})
    expect_relative(named(fit, key), value(g.at("truth"), key), 1e-3, key);
  const auto regions = find_regions(fit, data);
  ASSERT_TRUE(regions.has_value());
  expect_relative(regions->max_slope, value(g, "max_slope"), 0.005, "max_slope");
  expect_relative(regions->x_at_max, value(g, "x_at_max"), 0.02, "x_at_max");
  expect_relative(regions->x_lo, value(g, "x_lo"), 0.02, "x_lo");
  expect_relative(regions->x_hi, value(g, "x_hi"), 0.02, "x_hi");
  EXPECT_THAT(regions->points, testing::ElementsAre(6, 11, 12));
}

TEST(GoldenIsoflop, OptimaAndExponents) {
  for (const auto& [config, g] : golden().at("isoflop").items()) {
    const Columns c =
        read_columns(table("isoflop_subset.csv"), {"flops", "n", "loss"}, {{"config", config}});
    std::vector<IsoflopPoint> points;
    for (size_t i = 0; i < c.lines.size(); ++i)
      points.push_back({c.values[0][i], c.values[1][i], c.values[2][i]});
    const Isoflop result = fit_isoflop(points, {});
    ASSERT_EQ(result.optima.size(), g.at("optima").size()) << config;
    for (size_t i = 0; i < result.optima.size(); ++i) {
      const Json& optimum = g.at("optima")[i];
      EXPECT_EQ(result.optima[i].group, value(optimum, "flops"));
      expect_relative(result.optima[i].size, value(optimum, "n_star"), 1e-6, config);
      expect_relative(result.optima[i].loss, value(optimum, "loss_star"), 1e-6, config);
    }
    EXPECT_NEAR(result.exponent, value(g, "exponent"), 1e-6);
    expect_relative(result.coefficient, value(g, "coef"), 1e-5, config);
    EXPECT_LT(result.exponent_ci95.lo, result.exponent);
    EXPECT_GT(result.exponent_ci95.hi, result.exponent);
  }
}

class GoldenSweep : public testing::Test {
 protected:
  static const Study& study() {
    static const Study s = run_study(read_run_table(table("nfnet_like_sweep.csv")), {});
    return s;
  }
  const Json& g = golden().at("sweep");
};

TEST_F(GoldenSweep, RowsCellsAndFrontier) {
  const Study& s = study();
  EXPECT_EQ(s.rows, 147);
  EXPECT_EQ(s.selection.used.size(), 134u);
  EXPECT_EQ(s.selection.diverged.size(), 10u);
  EXPECT_EQ(s.selection.used.size() + s.selection.diverged.size(), g.at("runs_used"));
  EXPECT_EQ(nlohmann::json(s.selection.excluded), nlohmann::json::parse(g.at("excluded").dump()));
  EXPECT_EQ(s.not_bracketed.size(), g.at("not_bracketed").size());
  ASSERT_EQ(s.cells.size(), g.at("cells").get<size_t>());
  for (size_t i = 0; i < s.cells.size(); ++i) {
    const Json& cell = g.at("best_lr")[i];
    EXPECT_EQ(s.cells[i].model, cell.at("model"));
    EXPECT_EQ(s.cells[i].epochs, cell.at("epochs"));
    EXPECT_EQ(s.cells[i].learning_rate(), value(cell, "lr"));
    EXPECT_EQ(s.cells[i].run(), cell.at("run"));
    EXPECT_EQ(s.cells[i].loss(), value(cell, "loss"));
    EXPECT_NEAR(s.cells[i].log2_rate, value(cell, "refined_log2_lr"), 1e-6);
  }
  std::vector<std::string> frontier;
  for (const analysis::Run& run : s.frontier.runs) frontier.push_back(run.run);
  EXPECT_EQ(Json(frontier), g.at("frontier"));
  EXPECT_STREQ(s.frontier.axis(), "train_flops");
}

TEST_F(GoldenSweep, Laws) {
  const Study& s = study();
  const Json& law = g.at("law_2d");
  expect_objective(s.law.objective, value(law, "obj"), "law");
  expect_relative(s.law.E, value(law, "E"), 1e-4, "E");
  expect_relative(s.law.alpha, value(law, "alpha"), 1e-4, "alpha");
  expect_relative(s.law.beta, value(law, "beta"), 1e-4, "beta");
  expect_relative(s.law.A, value(law, "A"), 1e-3, "A");
  expect_relative(s.law.B, value(law, "B"), 1e-3, "B");
  expect_relative(s.law.exponent_size(), value(g, "exponent_F"), 1e-4, "exponent_F");
  expect_relative(s.law.exponent_images(), value(g, "exponent_D"), 1e-4, "exponent_D");
  ASSERT_TRUE(s.frontier_plc && s.frontier_pl);
  for (const auto& [curve, key] :
       {std::pair(&*s.frontier_plc, "frontier_plc"), std::pair(&*s.frontier_pl, "frontier_pl")}) {
    expect_objective(curve->fit.objective, value(g.at(key), "obj"), key);
    expect_relative(named(curve->fit, "alpha"), value(g.at(key), "alpha"), 1e-4, key);
    expect_relative(named(curve->fit, "A"), value(g.at(key), "A"), 1e-3, key);
  }
  // The truth of the table lies in the intervals.
  const auto& b = s.law_bootstrap;
  const Interval e = b.of([](const ScalingLaw& l) { return l.E; });
  const Interval alpha = b.of([](const ScalingLaw& l) { return l.alpha; });
  const Interval beta = b.of([](const ScalingLaw& l) { return l.beta; });
  EXPECT_TRUE(e.lo <= 1.6 && 1.6 <= e.hi);
  EXPECT_TRUE(alpha.lo <= 0.30 && 0.30 <= alpha.hi);
  EXPECT_TRUE(beta.lo <= 0.30 && 0.30 <= beta.hi);
}

TEST_F(GoldenSweep, LearningRateTrend) {
  const RateTrend& t = study().trend;
  const Json& trend = g.at("lr_trend");
  for (size_t i = 0; i < 4; ++i)
    EXPECT_NEAR(t.coefficients[i], trend.at("coef")[i].get<double>(), 1e-4);
  EXPECT_EQ(t.cells_used, trend.at("cells_used"));
  EXPECT_NEAR(t.rms_log2, value(trend, "rms_log2"), 1e-4);
  EXPECT_NEAR(t.cap_log2, value(trend, "cap_log2"), 1e-9);
  EXPECT_EQ(t.smallest_size, value(trend, "F0"));
}

TEST_F(GoldenSweep, HiddenPoints) {
  const Json& last = g.at("holdout_last3");
  ASSERT_EQ(study().holdouts.size(), 2u);
  const Holdout& h = study().holdouts[0];
  EXPECT_EQ(Json(h.runs), last.at("runs"));
  for (size_t i = 0; i < 3; ++i) {
    expect_relative(h.actual[i], last.at("actual")[i].get<double>(), 1e-12, "actual");
    expect_relative(h.predicted[i], last.at("predicted")[i].get<double>(), 1e-5, "predicted");
  }
  EXPECT_NEAR(h.rmsle, value(last, "rmsle"), 2e-5);
}

TEST_F(GoldenSweep, Plans) {
  const Json fit = to_json(study());
  EXPECT_EQ(fit.at("images_per_epoch"), 3999870000.0);
  const PlanBasis basis = read_plan_basis(fit, "fit.json", "");
  for (const Json& p : g.at("plan")) {
    const double hours = value(p, "device_hours");
    const std::string what = std::to_string(hours);
    const Plan plan = make_plan(basis, hours, {});
    expect_relative(plan.best.train_flops, value(p, "train_flops"), 1e-4, what);
    EXPECT_EQ(plan.best.model, p.at("model")) << what;
    expect_relative(plan.best.epochs, value(p, "epochs"), 1e-4, what);
    EXPECT_NEAR(plan.best.loss, value(p, "loss"), 1e-5) << what;
    EXPECT_NEAR(std::log2(plan.best.learning_rate), value(p, "log2_lr"), 1e-3) << what;
    expect_relative(plan.best.learning_rate_grid, value(p, "lr_grid"), 1e-9, what);
    ASSERT_TRUE(plan.runner_up.has_value());
    EXPECT_EQ(plan.runner_up->model, p.at("second")) << what;
    EXPECT_NEAR(plan.runner_up->loss, value(p, "second_loss"), 1e-5) << what;
    expect_relative(plan.continuous_size, value(p, "F_opt"), 1e-4, what);
    expect_relative(plan.continuous_epochs, value(p, "epochs_opt"), 2e-4, what);
    EXPECT_NEAR(plan.continuous_loss, value(p, "loss_opt"), 1e-5) << what;
    const double lo = p.at("loss_ci95_reference")[0], hi = p.at("loss_ci95_reference")[1];
    EXPECT_NEAR(plan.best.ci95.lo, lo, 0.2 * (hi - lo)) << what;
    EXPECT_NEAR(plan.best.ci95.hi, hi, 0.2 * (hi - lo)) << what;
    EXPECT_EQ(plan.extrapolated_by > 1, p.at("extrapolation").get<bool>()) << what;
  }
}

TEST(GoldenCost, PublishedIdentities) {
  const Json& paper = golden().at("cost").at("seed000")[0];
  const Device v3 = *find_device("TPU-v3"), v4 = *find_device("TPU-v4");
  const Price p3 = *find_price(shipped_prices(), "tpu-v3"),
              p4 = *find_price(shipped_prices(), "tpu-v4");
  EXPECT_EQ(p4.usd_per_hour, value(paper, "usd_v4"));
  EXPECT_EQ(p3.usd_per_hour, value(paper, "usd_v3"));
  const double total = cost_usd(2 * value(paper, "tpu_v4_chip_hours"), v4, p4) +
                       cost_usd(2 * value(paper, "tpu_v3_chip_hours"), v3, p3);
  EXPECT_NEAR(total, value(paper, "usd_total"), 1e-6);
  EXPECT_NEAR(total / value(paper, "tasks"), value(paper, "usd_per_task"), 0.005);
  const Json& demand = golden().at("cost").at("seed000")[1];
  const Price on_demand = *find_price(shipped_prices(), "tpu-v4", "on-demand");
  EXPECT_EQ(on_demand.usd_per_hour, value(demand, "usd_on_demand"));
  EXPECT_NEAR(value(demand, "core_hours") * on_demand.usd_per_hour, value(demand, "usd_total"),
              1e-6);
  for (const Json& n : golden().at("cost").at("nfnet"))
    EXPECT_NEAR(cost_usd(value(n, "core_hours"), v4, p4), value(n, "usd"), 1e-6);
  const double work = value(golden().at("cost").at("convert")[0], "flop");
  EXPECT_NEAR(110000 * 3600 * v4.peak_tflops * 1e12 * 0.40, work, 1e12);
  expect_relative(work / (3600 * 989e12 * 0.40),
                  value(golden().at("cost").at("convert")[1], "device_hours"), 1e-6, "hours");
}

TEST(GoldenCompare, OneCrossingAndNone) {
  for (const Json& g : golden().at("compare")) {
    const auto read = [&](const char* side) {
      return read_curve("vision_curves_subset.csv", "Seen Examples", "Loss",
                        {{"Task", g.at("task")}, {"Model", g.at(side)}});
    };
    const CurveData a = read("a"), b = read("b");
    BootstrapOptions few;
    few.samples = 20;
    const Comparison result =
        compare_curves(a, b, flexible_forms(std::min(a.size(), b.size())), 1e-2, few);
    ASSERT_EQ(result.crossings.size(), g.at("crossings").size()) << g.at("task");
    for (size_t i = 0; i < result.crossings.size(); ++i)
      expect_relative(result.crossings[i].x, g.at("crossings")[i].get<double>(), 0.15, "crossing");
    EXPECT_EQ(result.ahead_at_end, "B");
    if (result.crossings.empty()) {
      EXPECT_EQ(result.ahead_at_start, "B");
    }
  }
}

}  // namespace
}  // namespace nf::analysis

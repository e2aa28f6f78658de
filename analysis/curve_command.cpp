// nf-fit curve: one curve, its parameters, intervals, predictions and regions.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "analysis/csv.h"
#include "analysis/fit_commands.h"
#include "analysis/fit_json.h"
#include "core/error.h"

namespace nf::analysis {
namespace {

constexpr double kPredictionShare = 0.90;

struct CurveOptions {
  std::string input, x, y, output, form = "plc";
  std::vector<std::string> where, predict_where;
  std::vector<double> predict;
  double delta = kDefaultDelta;
  BootstrapOptions bootstrap;
};

struct CurveRows {
  std::optional<CurveData> fitted;
  std::vector<std::pair<double, double>> hidden;  // (x, y), in order
};

std::optional<Form> parse_form(const std::string& name) {
  for (const Form form : {Form::kPowerLaw, Form::kPowerLawConstant, Form::kSigmoid, Form::kBroken})
    if (form_name(form) == name) return form;
  return std::nullopt;  // auto
}

// Many points make each sample slow and the intervals narrow: fewer samples, at least 50.
int bootstrap_samples(size_t points, int wanted) {
  const double affordable = 2e7 / static_cast<double>(points);
  return std::min(wanted, std::max(50, static_cast<int>(affordable)));
}

// Rows that --predict-where chooses are hidden from the fit; it replaces a --where on its column.
CurveRows read_rows(const CurveOptions& o, std::vector<std::string>& warnings) {
  std::vector<Condition> where, hidden_where;
  for (const auto& text : o.predict_where) hidden_where.push_back(parse_condition(text));
  const size_t own = hidden_where.size();
  for (const auto& text : o.where) {
    const Condition condition = parse_condition(text);
    where.push_back(condition);
    if (std::none_of(hidden_where.begin(), hidden_where.begin() + static_cast<ptrdiff_t>(own),
                     [&](const auto& h) { return h.column == condition.column; }))
      hidden_where.push_back(condition);
  }
  CurveRows rows;
  Columns all = read_columns(o.input, {o.x, o.y}, where);
  if (own > 0) {
    const Columns hidden = read_columns(o.input, {o.x, o.y}, hidden_where);
    for (size_t i = 0; i < hidden.lines.size(); ++i)
      if (hidden.values[0][i] > 0 && hidden.values[1][i] > 0 &&
          std::isfinite(hidden.values[0][i] + hidden.values[1][i]))
        rows.hidden.emplace_back(hidden.values[0][i], hidden.values[1][i]);
    std::sort(rows.hidden.begin(), rows.hidden.end());
    size_t kept = 0;
    for (size_t i = 0; i < all.lines.size(); ++i) {
      if (std::binary_search(hidden.lines.begin(), hidden.lines.end(), all.lines[i])) continue;
      all.values[0][kept] = all.values[0][i];
      all.values[1][kept++] = all.values[1][i];
    }
    for (auto& column : all.values) column.resize(kept);
  }
  drop_bad_rows(all.values, o.input, warnings);
  rows.fitted.emplace(std::move(all.values[0]), std::move(all.values[1]), o.input);
  return rows;
}

void add_regions(const CurveData& data, const CurveFit& fit, Json& out,
                 std::vector<std::string>& warnings) {
  out["regions"] = Json();
  if (static_cast<int>(data.size()) < form_least_points(Form::kSigmoid)) {
    warnings.push_back("regions: fewer than 6 points, not searched");
    return;
  }
  const CurveFit sigmoid =
      fit.form == Form::kSigmoid ? fit : fit_curve(data, Form::kSigmoid, fit.delta);
  const auto regions = find_regions(sigmoid, data);
  if (!regions) return;
  out["regions"] = to_json(*regions);
  if (regions->points[1] == 0)
    warnings.push_back(
        "no point lies in the power-law region: no exponent of this table is trustworthy");
}

// The predictions at given x, each {"x", "y", "lo", "hi"}, and the score of the hidden rows.
template <class Predict>
void add_predictions(const CurveOptions& o, const CurveRows& rows, const CurveData& data,
                     const Predict& predict, Json& out, std::vector<std::string>& warnings) {
  Json predictions = Json::array();
  double farthest = 0;
  const auto add = [&](double x) -> Json& {
    farthest = std::max(farthest, x);
    const auto [y, interval] = predict(x);
    predictions.push_back({{"x", x}, {"y", y}, {"lo", interval.lo}, {"hi", interval.hi}});
    return predictions.back();
  };
  for (const double x : o.predict) {
    if (!(x > 0)) throw Error(ExitCode::kUsage, "--predict", fmt::format("{} is not positive", x));
    add(x);
  }
  std::vector<double> predicted, measured;
  for (const auto& [x, y] : rows.hidden) {
    Json& json = add(x);
    json["measured"] = y;
    predicted.push_back(json["y"]);
    measured.push_back(y);
  }
  out["predictions"] = std::move(predictions);
  out["rmsle"] = predicted.empty() ? Json() : Json(rmsle(predicted, measured));
  if (farthest > data.x().back())
    warnings.push_back(fmt::format("extrapolated by a factor {:.4g} beyond the largest x",
                                   farthest / data.x().back()));
}

int run(const CurveOptions& o) {
  std::vector<std::string> warnings;
  const CurveRows rows = read_rows(o, warnings);
  const CurveData& data = *rows.fitted;
  const auto form = parse_form(o.form);
  std::optional<AutoFit> combined;
  if (!form) combined = fit_auto(data);
  const CurveFit fit = form ? fit_curve(data, *form, o.delta) : combined->overall;
  BootstrapOptions options = o.bootstrap;
  options.samples = bootstrap_samples(data.size(), o.bootstrap.samples);
  if (options.samples < o.bootstrap.samples)
    warnings.push_back(fmt::format("{} points: {} bootstrap samples instead of {}", data.size(),
                                   options.samples, o.bootstrap.samples));
  const CurveBootstrap bootstrap = bootstrap_curve(data, fit, options);
  Json out = {{"form", o.form}, {"points", data.size()}};
  const Json fitted = to_json(fit, bootstrap);
  for (const char* key : {"objective", "parameters", "ci95"}) out[key] = fitted[key];
  for (auto& text : curve_warnings(fit, data)) warnings.push_back(std::move(text));
  const Convergence& c = bootstrap.convergence;
  if (c.doubtful())
    warnings.push_back(fmt::format("bootstrap: only {} of {} samples converged{}", c.converged,
                                   c.samples, c.usable() ? "" : "; no interval is given"));
  if (combined) {
    out["parameters_of"] = "plc on all points";
    warnings.push_back(fmt::format("auto: the mean of {} fits; the parameters shown are of plc",
                                   combined->members.size()));
    add_predictions(
        o, rows, data,
        [&](double x) {
          const double y = combined->predict(x);
          const double half = combined->log_half_width(x, kPredictionShare);
          return std::pair(y, Interval{y * std::exp(-half), y * std::exp(half)});
        },
        out, warnings);
  } else {
    add_predictions(
        o, rows, data,
        [&](double x) {
          return std::pair(fit.predict(x), c.usable() ? bootstrap.prediction(x, kPredictionShare)
                                                      : Interval{NAN, NAN});
        },
        out, warnings);
  }
  add_regions(data, fit, out, warnings);
  out["seed"] = o.bootstrap.seed;
  out["warnings"] = warnings;
  write_json(out, o.output);
  return 0;
}

}  // namespace

Subcommand add_curve_command(CLI::App& program) {
  auto o = std::make_shared<CurveOptions>();
  CLI::App* app =
      program.add_subcommand("curve", "One curve: law, intervals, predictions, regions");
  app->footer(
      "example:\n  nf-fit curve --input vision.csv --x \"Seen Examples\" --y Loss "
      "--where Task=bird_10 --where Training=1 --predict-where Training=0 --form auto");
  app->add_option("--input", o->input, "CSV")->required()->check(CLI::ExistingFile);
  app->add_option("--x", o->x, "column of x (images, FLOPs, ...)")->required();
  app->add_option("--y", o->y, "column of the loss")->required();
  app->add_option("--where", o->where, "COLUMN=VALUE: only such rows; may be repeated")
      ->allow_extra_args(false);
  app->add_option("--form", o->form, "pl, plc, sigmoid, broken or auto")
      ->check(CLI::IsMember({"pl", "plc", "sigmoid", "broken", "auto"}))
      ->capture_default_str();
  app->add_option("--delta", o->delta, "Huber's delta, on ln loss")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--predict", o->predict, "x values, comma separated")->delimiter(',');
  app->add_option("--predict-where", o->predict_where,
                  "COLUMN=VALUE: hide such rows, predict and score them")
      ->allow_extra_args(false);
  app->add_option("--output", o->output, "JSON file; default: stdout");
  add_bootstrap_options(*app, o->bootstrap);
  return {app, [o] { return run(*o); }};
}

}  // namespace nf::analysis

// nf-fit compare: do two families cross, and who is ahead at both ends?
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "analysis/compare.h"
#include "analysis/csv.h"
#include "analysis/fit_commands.h"
#include "analysis/fit_json.h"
#include "core/error.h"

namespace nf::analysis {
namespace {

struct CompareOptions {
  std::string a, b, x, y, output, form = "auto", price_trend;
  std::vector<std::string> where;
  double delta = 1e-2, budget = 0, from_year = 0;
  BootstrapOptions bootstrap;
};

std::vector<Form> parse_forms(const std::string& name, size_t points) {
  for (const Form form : {Form::kPowerLaw, Form::kPowerLawConstant, Form::kSigmoid, Form::kBroken})
    if (form_name(form) == name) return {form};
  return flexible_forms(points);
}

CurveData read_curve(const std::string& file, const CompareOptions& o,
                     std::vector<std::string>& warnings) {
  std::vector<Condition> where;
  for (const auto& text : o.where) where.push_back(parse_condition(text));
  Columns table = read_columns(file, {o.x, o.y}, where);
  drop_bad_rows(table.values, file, warnings);
  return {std::move(table.values[0]), std::move(table.values[1]), file};
}

// "10x/5y": what one pays for falls by that factor in that many years.
struct PriceTrend {
  double factor, years;
};
PriceTrend parse_trend(const std::string& text) {
  const size_t x = text.find("x/"), y = text.rfind('y');
  if (x != std::string::npos && y == text.size() - 1 && y > x + 2) {
    const auto factor = parse_number(std::string_view(text).substr(0, x));
    const auto years = parse_number(std::string_view(text).substr(x + 2, y - x - 2));
    if (factor && years && *factor > 1 && *years > 0) return {*factor, *years};
  }
  throw Error(ExitCode::kUsage, "--price-trend", "'" + text + "' is not FACTORx/YEARSy",
              "10x/5y means: ten times as much for the money after five years");
}

// When the crossing can be paid with what pays `budget` in `from_year`.
double year_of(double x, const CompareOptions& o, const PriceTrend& trend) {
  return o.from_year + trend.years * std::log(x / o.budget) / std::log(trend.factor);
}

int run(const CompareOptions& o) {
  std::vector<std::string> warnings;
  const CurveData a = read_curve(o.a, o, warnings), b = read_curve(o.b, o, warnings);
  const Comparison result =
      compare_curves(a, b, parse_forms(o.form, std::min(a.size(), b.size())), o.delta, o.bootstrap);
  std::optional<PriceTrend> trend;
  if (!o.price_trend.empty()) {
    trend = parse_trend(o.price_trend);
    if (!(o.budget > 0) || !(o.from_year > 0))
      throw Error(ExitCode::kUsage, "--price-trend", "needs --budget and --from-year",
                  "for example --price-trend 10x/5y --budget 1e20 --from-year 2026");
  }
  Json crossings = Json::array();
  for (const auto& c : result.crossings) {
    Json json = {{"x", c.x}, {"lo", c.ci95.lo}, {"hi", c.ci95.hi}};
    if (trend) {
      json["year"] = year_of(c.x, o, *trend);
      json["year_ci95"] = {year_of(c.ci95.lo, o, *trend), year_of(c.ci95.hi, o, *trend)};
    }
    crossings.push_back(std::move(json));
  }
  for (const auto& text : result.warnings) warnings.push_back(text);
  write_json({{"a", o.a},
              {"b", o.b},
              {"form", o.form},
              {"x_start", result.x_start},
              {"x_end", result.x_end},
              {"crossings", crossings},
              {"ahead_at_start", result.ahead_at_start},
              {"ahead_at_end", result.ahead_at_end},
              {"seed", o.bootstrap.seed},
              {"warnings", warnings}},
             o.output);
  return 0;
}

}  // namespace

Subcommand add_compare_command(CLI::App& program) {
  auto o = std::make_shared<CompareOptions>();
  CLI::App* app = program.add_subcommand("compare", "Where two families cross");
  app->footer(
      "example:\n  nf-fit compare convnet.csv mixer.csv --x \"Seen Examples\" --y Loss "
      "--where Task=bird_10\nahead_at_start and ahead_at_end name the table with the lower loss: A "
      "or B");
  app->add_option("A", o->a, "first CSV")->required()->check(CLI::ExistingFile);
  app->add_option("B", o->b, "second CSV")->required()->check(CLI::ExistingFile);
  app->add_option("--x", o->x, "column of x (images, FLOPs, ...)")->required();
  app->add_option("--y", o->y, "column of the loss")->required();
  app->add_option("--where", o->where, "COLUMN=VALUE: only such rows; may be repeated")
      ->allow_extra_args(false);
  app->add_option("--form", o->form,
                  "pl, plc, sigmoid, broken, or auto: the mean of sigmoid and broken")
      ->check(CLI::IsMember({"pl", "plc", "sigmoid", "broken", "auto"}))
      ->capture_default_str();
  app->add_option("--delta", o->delta, "Huber's delta, on ln loss")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--price-trend", o->price_trend, "FACTORx/YEARSy: dates the crossings");
  app->add_option("--budget", o->budget, "the x that can be paid in --from-year");
  app->add_option("--from-year", o->from_year, "the year of --budget");
  app->add_option("--output", o->output, "JSON file; default: stdout");
  o->bootstrap.samples = 200;
  add_bootstrap_options(*app, o->bootstrap);
  return {app, [o] { return run(*o); }};
}

}  // namespace nf::analysis

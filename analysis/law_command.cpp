// nf-fit law: L(F, D) = E + A / F^alpha + B / D^beta on any table.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "analysis/csv.h"
#include "analysis/fit_commands.h"
#include "analysis/fit_json.h"
#include "core/error.h"

namespace nf::analysis {
namespace {

struct LawOptions {
  std::string input, size, images, loss, output;
  std::vector<std::string> where;
  double delta = kDefaultDelta;
  int drop_worst = 0;
  BootstrapOptions bootstrap;
};

int run(const LawOptions& o) {
  std::vector<Condition> where;
  for (const auto& text : o.where) where.push_back(parse_condition(text));
  Columns table = read_columns(o.input, {o.size, o.images, o.loss}, where);
  std::vector<std::string> warnings;
  drop_bad_rows(table.values, o.input, warnings);
  std::vector<LawPoint> points;
  for (size_t i = 0; i < table.values[0].size(); ++i)
    points.push_back({table.values[0][i], table.values[1][i], table.values[2][i]});
  std::sort(points.begin(), points.end(), [](const LawPoint& a, const LawPoint& b) {
    return std::tie(a.loss, a.size, a.images) < std::tie(b.loss, b.size, b.images);
  });
  points.resize(points.size() - std::min(points.size(), static_cast<size_t>(o.drop_worst)));
  std::vector<double> budgets;
  for (const auto& p : points) budgets.push_back(p.images);
  check_law_points(points, budgets, LawNeeds{});
  const ScalingLaw law = fit_law(points, o.delta);
  const LawBootstrap bootstrap = bootstrap_law(points, law, o.bootstrap, o.delta);
  Json out = {{"points", points.size()}};
  out.update(to_json(law, bootstrap));
  for (auto& text : law_warnings(law, points)) warnings.push_back(std::move(text));
  const Convergence& c = bootstrap.convergence;
  if (c.doubtful())
    warnings.push_back(fmt::format("bootstrap: only {} of {} samples converged{}", c.converged,
                                   c.samples, c.usable() ? "" : "; no interval is given"));
  out["seed"] = o.bootstrap.seed;
  out["warnings"] = warnings;
  write_json(out, o.output);
  return 0;
}

}  // namespace

Subcommand add_law_command(CLI::App& program) {
  auto o = std::make_shared<LawOptions>();
  CLI::App* app = program.add_subcommand("law", "L(F, D) = E + A / F^alpha + B / D^beta");
  app->footer(
      "example:\n  nf-fit law --input cells.csv --size train_flops_per_image --images images_seen "
      "--loss heldout_loss --where status=done");
  app->add_option("--input", o->input, "CSV")->required()->check(CLI::ExistingFile);
  app->add_option("--size", o->size, "column of the model's size F")->required();
  app->add_option("--images", o->images, "column of the images seen D")->required();
  app->add_option("--loss", o->loss, "column of the loss")->required();
  app->add_option("--where", o->where, "COLUMN=VALUE: only such rows; may be repeated")
      ->allow_extra_args(false);
  app->add_option("--delta", o->delta, "Huber's delta, on ln loss")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--drop-worst", o->drop_worst, "leave out the K highest losses")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app->add_option("--output", o->output, "JSON file; default: stdout");
  add_bootstrap_options(*app, o->bootstrap);
  return {app, [o] { return run(*o); }};
}

}  // namespace nf::analysis

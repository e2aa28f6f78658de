// How well each estimator extrapolates learning curves: every curve of a table, the part beyond a
// cut hidden, mean RMSLE per estimator side by side, and how many hidden points lie in the 90 %
// intervals of `auto`. The table: one row a point, columns Task, Model, Seen Examples, Loss,
// Training (1 = fit), as tests/golden/scaling/vision_curves_subset.csv; other curves can be given.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "analysis/bootstrap.h"
#include "analysis/csv.h"
#include "analysis/learning_curve.h"
#include "analysis/statistics.h"
#include "core/atomic_file.h"
#include "core/command_line.h"
#include "core/error.h"
#include "core/program.h"

namespace {
using namespace nf::analysis;

struct Curve {
  std::vector<double> x, y, training;
};

std::map<std::string, Curve> read_curves(const std::string& file) {
  const std::string text = nf::read_file(file);
  CsvReader reader(text, file);
  std::vector<std::string_view> f;
  reader.next(f);
  const std::vector<std::string> header(f.begin(), f.end());
  const auto place = [&](const char* name) {
    const auto at = std::find(header.begin(), header.end(), name);
    if (at == header.end())
      throw nf::Error(nf::ExitCode::kUsage, file, std::string("no column ") + name);
    return static_cast<size_t>(at - header.begin());
  };
  const size_t task = place("Task"), model = place("Model"), x = place("Seen Examples"),
               y = place("Loss"), training = place("Training");
  std::map<std::string, Curve> curves;
  while (reader.next(f)) {
    Curve& c = curves[std::string(f[task]) + " " + std::string(f[model])];
    c.x.push_back(parse_number(f[x]).value());
    c.y.push_back(parse_number(f[y]).value());
    c.training.push_back(parse_number(f[training]).value());
  }
  return curves;
}

struct Split {
  std::vector<double> x, y, hidden_x, hidden_y;
};

// cut 0: the table's own split.
Split split(const Curve& curve, double cut) {
  const double top = *std::max_element(curve.x.begin(), curve.x.end());
  Split s;
  for (size_t i = 0; i < curve.x.size(); ++i) {
    const bool fit = cut == 0 ? curve.training[i] == 1 : curve.x[i] <= top / cut;
    (fit ? s.x : s.hidden_x).push_back(curve.x[i]);
    (fit ? s.y : s.hidden_y).push_back(curve.y[i]);
  }
  return s;
}

constexpr const char* kEstimators[] = {"pl",      "plc",    "plc without the first 40 %",
                                       "sigmoid", "broken", "auto"};
constexpr size_t kCount = std::size(kEstimators);

struct Scores {
  double rmsle[kCount];
  double inside = 0, points = 0;
  bool used = false;
};

Scores score(const Curve& curve, double cut, size_t least) {
  const Split s = split(curve, cut);
  Scores scores{};
  if (s.x.size() < least || s.hidden_x.empty()) return scores;
  scores.used = true;
  const CurveData data(s.x, s.y);
  const auto judge = [&](size_t i, const auto& fit) {
    std::vector<double> predicted;
    for (const double x : s.hidden_x) predicted.push_back(fit.predict(x));
    scores.rmsle[i] = rmsle(predicted, s.hidden_y);
  };
  judge(0, fit_curve(data, Form::kPowerLaw));
  judge(1, fit_curve(data, Form::kPowerLawConstant));
  const double low = std::log(data.x().front()), high = std::log(data.x().back());
  judge(2, fit_curve(data.between(std::exp(low + 0.4 * (high - low)), INFINITY),
                     Form::kPowerLawConstant));
  judge(3, fit_curve(data, Form::kSigmoid));
  judge(4, fit_curve(data, Form::kBroken));
  const AutoFit combined = fit_auto(data);
  judge(5, combined);
  for (size_t i = 0; i < s.hidden_x.size(); ++i) {
    const double off = std::log(s.hidden_y[i] / combined.predict(s.hidden_x[i]));
    scores.inside += std::fabs(off) <= combined.log_half_width(s.hidden_x[i], 0.90) ? 1 : 0;
    scores.points += 1;
  }
  return scores;
}

int start(int argc, char** argv) {
  CLI::App app{"Mean RMSLE of each estimator on hidden parts of learning curves.",
               "scaling_curves"};
  app.footer("example:\n  scaling_curves --table tests/golden/scaling/vision_curves_subset.csv");
  std::string table = "tests/golden/scaling/vision_curves_subset.csv";
  bool each = false;
  app.add_option("--table", table, "CSV of curves")->capture_default_str();
  app.add_flag("--each", each, "also one line a curve");
  if (const auto code = nf::parse_command_line(app, argc, argv)) return *code;
  const auto curves = read_curves(table);
  const std::vector<std::pair<std::string, Curve>> list(curves.begin(), curves.end());
  fmt::print("{:28}", "estimator");
  std::vector<std::vector<Scores>> all;
  for (const double cut : {0.0, 2.0, 4.0, 8.0}) {
    all.emplace_back(list.size());
    parallel_for(static_cast<int>(list.size()), 0, [&](int i) {
      const auto k = static_cast<size_t>(i);
      all.back()[k] = score(list[k].second, cut, cut == 0 ? 7 : 12);
    });
    const auto used =
        std::count_if(all.back().begin(), all.back().end(), [](const Scores& s) { return s.used; });
    fmt::print("{:>16}",
               cut == 0 ? fmt::format("Training ({})", used) : fmt::format("1/{} ({})", cut, used));
  }
  for (size_t e = 0; e < kCount; ++e) {
    fmt::print("\n{:28}", kEstimators[e]);
    for (const auto& scores : all) {
      std::vector<double> errors;
      for (const Scores& s : scores)
        if (s.used) errors.push_back(s.rmsle[e]);
      fmt::print("{:16.4f}", mean(errors));
    }
  }
  fmt::print("\n{:28}", "in the 90 % interval of auto");
  for (const auto& scores : all) {
    double inside = 0, points = 0;
    for (const Scores& s : scores) {
      inside += s.inside;
      points += s.points;
    }
    fmt::print("{:16.3f}", inside / points);
  }
  fmt::print("\n");
  for (size_t k = 0; each && k < list.size(); ++k) {
    fmt::print("{:28}", list[k].first);
    for (const auto& scores : all)
      fmt::print("{:>16}", scores[k].used ? fmt::format("{:.4f}", scores[k].rmsle[5]) : "-");
    fmt::print("\n");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return nf::run_program("scaling_curves", [&] { return start(argc, argv); });
}

// See robust_fit.h.
#include "analysis/robust_fit.h"

#include <ceres/cost_function.h>
#include <ceres/gradient_problem.h>
#include <ceres/gradient_problem_solver.h>
#include <ceres/loss_function.h>
#include <ceres/problem.h>
#include <ceres/solver.h>
#include <glog/logging.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/check.h"

namespace nf::analysis {
namespace {

// Ceres warns on stderr when a line search meets a constant polynomial, which here only means that
// the optimum was hit exactly. Libraries print nothing.
[[maybe_unused]] const bool kQuiet = [] {
  FLAGS_minloglevel = google::GLOG_FATAL;
  return true;
}();

double weight_of(const RobustProblem& problem, size_t i) {
  return problem.weight.empty() ? 1.0 : problem.weight[i];
}

// sum / delta^2 and its gradient (may be null).
double scaled_sum(const RobustProblem& problem, const double* p, double* gradient) {
  const int k = problem.model->parameters();
  double each[16];
  double sum = 0;
  if (gradient) std::fill(gradient, gradient + k, 0.0);
  for (size_t i = 0; i < problem.log_target.size(); ++i) {
    const double w = weight_of(problem, i);
    if (w == 0) continue;
    const double u =
        (problem.model->log_value(p, i, gradient ? each : nullptr) - problem.log_target[i]) /
        problem.delta;
    sum += w * huber(u, 1.0);
    if (!gradient) continue;
    const double slope = w * std::clamp(u, -1.0, 1.0) / problem.delta;
    for (int j = 0; j < k; ++j) gradient[j] += slope * each[j];
  }
  return sum;
}

class ScaledSum final : public ceres::FirstOrderFunction {
 public:
  explicit ScaledSum(const RobustProblem& problem) : problem_(problem) {}
  bool Evaluate(const double* p, double* cost, double* gradient) const override {
    *cost = scaled_sum(problem_, p, gradient);
    if (!std::isfinite(*cost)) return false;
    if (gradient)
      for (int j = 0; j < NumParameters(); ++j)
        if (!std::isfinite(gradient[j])) return false;
    return true;
  }
  int NumParameters() const override { return problem_.model->parameters(); }

 private:
  const RobustProblem& problem_;
};

enum class Effort { kScan, kWarm, kPolish };

Minimum bfgs(const RobustProblem& problem, std::span<const double> start, Effort effort) {
  ceres::GradientProblem gradient_problem(new ScaledSum(problem));
  ceres::GradientProblemSolver::Options options;
  options.line_search_direction_type = ceres::BFGS;
  options.logging_type = ceres::SILENT;
  options.max_num_iterations = effort == Effort::kScan ? 150 : 600;
  options.function_tolerance = effort == Effort::kScan   ? 1e-7
                               : effort == Effort::kWarm ? 1e-10
                                                         : 1e-15;
  options.parameter_tolerance = effort == Effort::kPolish ? 1e-15 : 1e-10;
  options.gradient_tolerance = 1e-10;
  Minimum minimum;
  minimum.parameters.assign(start.begin(), start.end());
  ceres::GradientProblemSolver::Summary summary;
  ceres::Solve(options, gradient_problem, minimum.parameters.data(), &summary);
  minimum.objective = objective(problem, minimum.parameters);
  minimum.converged =
      summary.termination_type == ceres::CONVERGENCE && std::isfinite(minimum.objective);
  return minimum;
}

class Residual final : public ceres::CostFunction {
 public:
  Residual(const RobustProblem& problem, size_t i) : problem_(problem), i_(i) {
    set_num_residuals(1);
    mutable_parameter_block_sizes()->push_back(problem.model->parameters());
  }
  bool Evaluate(double const* const* p, double* residual, double** jacobian) const override {
    const int k = problem_.model->parameters();
    double* gradient = jacobian ? jacobian[0] : nullptr;
    residual[0] =
        (problem_.model->log_value(p[0], i_, gradient) - problem_.log_target[i_]) / problem_.delta;
    if (gradient)
      for (int j = 0; j < k; ++j) gradient[j] /= problem_.delta;
    return std::isfinite(residual[0]);
  }

 private:
  const RobustProblem& problem_;
  size_t i_;
};

Minimum levenberg_marquardt(const RobustProblem& problem, std::span<const double> start) {
  Minimum minimum;
  minimum.parameters.assign(start.begin(), start.end());
  ceres::Problem least_squares;
  for (size_t i = 0; i < problem.log_target.size(); ++i) {
    const double w = weight_of(problem, i);
    if (w == 0) continue;
    least_squares.AddResidualBlock(
        new Residual(problem, i),
        new ceres::ScaledLoss(new ceres::HuberLoss(1.0), w, ceres::TAKE_OWNERSHIP),
        minimum.parameters.data());
  }
  ceres::Solver::Options options;
  options.linear_solver_type = ceres::DENSE_QR;
  options.logging_type = ceres::SILENT;
  options.max_num_iterations = 300;
  options.function_tolerance = 1e-15;
  options.parameter_tolerance = 1e-15;
  options.gradient_tolerance = 1e-12;
  ceres::Solver::Summary summary;
  ceres::Solve(options, &least_squares, &summary);
  minimum.objective = objective(problem, minimum.parameters);
  minimum.converged =
      summary.termination_type == ceres::CONVERGENCE && std::isfinite(minimum.objective);
  return minimum;
}

// Both solvers in turn until a round gains less than 1e-11 of the objective.
Minimum polish(const RobustProblem& problem, Minimum best) {
  for (int round = 0; round < 8; ++round) {
    const double before = best.objective;
    for (Minimum next : {bfgs(problem, best.parameters, Effort::kPolish),
                         levenberg_marquardt(problem, best.parameters)}) {
      best.converged = best.converged || next.converged;
      if (!(next.objective <= best.objective)) continue;
      next.converged = best.converged;
      best = std::move(next);
    }
    if (before - best.objective <= 1e-11 * before) break;
  }
  return best;
}

constexpr size_t kManyPoints = 5000;

// About kManyPoints of the points, always the same ones and without a stride that could fall in
// step with the table.
class SampledModel final : public LogModel {
 public:
  explicit SampledModel(const RobustProblem& all) : model_(*all.model) {
    const double share =
        static_cast<double>(kManyPoints) / static_cast<double>(all.log_target.size());
    const auto limit = static_cast<uint64_t>(share * 4294967296.0);
    for (size_t i = 0; i < all.log_target.size(); ++i) {
      if (((i * 2654435761u) & 0xffffffffu) >= limit) continue;
      index_.push_back(i);
      target_.push_back(all.log_target[i]);
      if (!all.weight.empty()) weight_.push_back(all.weight[i]);
    }
  }
  int parameters() const override { return model_.parameters(); }
  size_t points() const override { return index_.size(); }
  double log_value(const double* p, size_t i, double* gradient) const override {
    return model_.log_value(p, index_[i], gradient);
  }
  RobustProblem problem(double delta) const { return {this, target_, weight_, delta}; }

 private:
  const LogModel& model_;
  std::vector<size_t> index_;
  std::vector<double> target_, weight_;
};

}  // namespace

double huber(double r, double delta) {
  const double size = std::fabs(r);
  return size <= delta ? r * r / 2 : delta * (size - delta / 2);
}

double objective(const RobustProblem& problem, std::span<const double> parameters) {
  return scaled_sum(problem, parameters.data(), nullptr) * problem.delta * problem.delta;
}

std::vector<double> objective_gradient(const RobustProblem& problem,
                                       std::span<const double> parameters) {
  std::vector<double> gradient(parameters.size());
  scaled_sum(problem, parameters.data(), gradient.data());
  for (double& g : gradient) g *= problem.delta * problem.delta;
  return gradient;
}

Minimum fit_from_starts(const RobustProblem& problem, std::span<const std::vector<double>> starts) {
  NF_CHECK(!starts.empty() && problem.model->parameters() <= 16);
  if (problem.log_target.size() > 2 * kManyPoints) {
    const SampledModel sample(problem);
    return bfgs(problem, fit_from_starts(sample.problem(problem.delta), starts).parameters,
                Effort::kWarm);
  }
  constexpr size_t kPolished = 3;
  std::vector<Minimum> ends;
  for (const auto& start : starts) {
    if (!std::isfinite(objective(problem, start))) continue;
    ends.push_back(bfgs(problem, start, Effort::kScan));
  }
  NF_CHECK(!ends.empty(), "no start has a finite objective");
  std::stable_sort(ends.begin(), ends.end(),
                   [](const auto& a, const auto& b) { return a.objective < b.objective; });
  Minimum best = polish(problem, ends[0]);
  for (size_t i = 1; i < std::min(kPolished, ends.size()); ++i) {
    if (ends[i].objective <= ends[0].objective * (1 + 1e-6)) continue;  // the same valley
    Minimum other = polish(problem, ends[i]);
    if (other.objective < best.objective) best = std::move(other);
  }
  return best;
}

Minimum fit_warm(const RobustProblem& problem, std::span<const double> start) {
  return bfgs(problem, start, Effort::kWarm);
}

}  // namespace nf::analysis

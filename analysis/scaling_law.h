// The law of a sweep: L(F, D) = E + A / F^alpha + B / D^beta with F train FLOPs an image (not
// parameters: ConvNets use each weight at many places), D images seen, C = F D. Fitted to ln L as
// every other form; its compute-optimal split of a budget, and intervals by case bootstrap.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "analysis/bootstrap.h"
#include "analysis/robust_fit.h"

namespace nf::analysis {

// One measured cell.
struct LawPoint {
  double size, images, loss;
};

struct ScalingLaw {
  double E = 0, A = 0, B = 0, alpha = 0, beta = 0;
  double objective = 0;
  bool converged = false;
  // With repetition counted (`--reuse`): every pass after the first is worth less; 0: not fitted.
  double reuse = 0;

  double loss(double size, double images) const;
  double exponent_size() const { return beta / (alpha + beta); }
  double exponent_images() const { return alpha / (alpha + beta); }
  // The size that minimises the loss at size x images = compute.
  double best_size(double compute) const;
};

// What the law needs; throws Error(kData) saying what is there and what is missing.
struct LawNeeds {
  int points = 10, sizes = 3, budgets = 3;
};
void check_law_points(std::span<const LawPoint> points, std::span<const double> budgets,
                      const LawNeeds& needs);

// `points` in any order: they are sorted first. At least 5 points of 2 sizes.
ScalingLaw fit_law(std::vector<LawPoint> points, double delta = kDefaultDelta);

// Images that count: U (1 + R (1 - exp(-(epochs - 1) / R))) past the first pass over U images.
double effective_images(double images, double images_per_epoch, double reuse);
ScalingLaw fit_law_with_reuse(std::vector<LawPoint> points, double images_per_epoch,
                              double delta = kDefaultDelta);

struct LawBootstrap {
  std::vector<ScalingLaw> laws;  // converged samples
  Convergence convergence;
  Interval of(double (*value)(const ScalingLaw&), double share = 0.95) const;
  Interval loss(double size, double images, double share = 0.95) const;
};
LawBootstrap bootstrap_law(std::vector<LawPoint> points, const ScalingLaw& law,
                           const BootstrapOptions& options, double delta = kDefaultDelta);

// ln(measured) - ln(law) of each point.
std::vector<double> log_residuals(std::span<const LawPoint> points, const ScalingLaw& law);

// Where the loss of a run that was not fitted will lie: what the samples' laws say, each times a
// residual drawn from the fit's own. `stream` tells predictions of one call apart.
Interval predict_interval(const LawBootstrap& bootstrap, std::span<const double> residuals,
                          double size, double images, uint64_t seed, uint64_t stream,
                          double share = 0.90);

std::vector<std::string> law_warnings(const ScalingLaw& law, std::span<const LawPoint> points);

}  // namespace nf::analysis

// See scaling_law.h.
#include "analysis/scaling_law.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"

namespace nf::analysis {
namespace {

// Parameters: e, a, alpha, b, beta, and with reuse ln R.
class LawModel final : public LogModel {
 public:
  // images_per_epoch 0: no reuse.
  LawModel(const std::vector<LawPoint>& points, double images_per_epoch)
      : images_per_epoch_(images_per_epoch) {
    for (const LawPoint& p : points) {
      log_size0_ += std::log(p.size);
      log_images0_ += std::log(p.images);
      log_loss_.push_back(std::log(p.loss));
    }
    log_size0_ /= static_cast<double>(points.size());
    log_images0_ /= static_cast<double>(points.size());
    for (const LawPoint& p : points) {
      n_.push_back(std::log(p.size) - log_size0_);
      q_.push_back(std::log(p.images) - log_images0_);
    }
  }

  int parameters() const override { return images_per_epoch_ > 0 ? 6 : 5; }
  size_t points() const override { return n_.size(); }
  const std::vector<double>& log_loss() const { return log_loss_; }

  double log_value(const double* p, size_t i, double* g) const override {
    double q = q_[i], q_slope = 0;
    if (images_per_epoch_ > 0) q = reused(p[5], i, &q_slope);
    const double by_size = p[1] - p[2] * n_[i], by_images = p[3] - p[4] * q;
    const double top = std::max({p[0], by_size, by_images});
    const double e = std::exp(p[0] - top), s = std::exp(by_size - top),
                 d = std::exp(by_images - top);
    const double sum = e + s + d;
    if (g) {
      g[0] = e / sum;
      g[1] = s / sum;
      g[2] = -n_[i] * s / sum;
      g[3] = d / sum;
      g[4] = -q * d / sum;
      if (images_per_epoch_ > 0) g[5] = -p[4] * q_slope * d / sum;
    }
    return top + std::log(sum);
  }

  ScalingLaw law(const Minimum& minimum) const {
    const auto& p = minimum.parameters;
    ScalingLaw law;
    law.E = std::exp(p[0]);
    law.A = std::exp(p[1] + p[2] * log_size0_);
    law.alpha = p[2];
    law.B = std::exp(p[3] + p[4] * log_images0_);
    law.beta = p[4];
    law.objective = minimum.objective;
    law.converged = minimum.converged;
    if (images_per_epoch_ > 0) law.reuse = std::exp(p[5]);
    return law;
  }

  std::vector<double> parameters_of(const ScalingLaw& law) const {
    std::vector<double> p = {std::log(law.E), std::log(law.A) - law.alpha * log_size0_, law.alpha,
                             std::log(law.B) - law.beta * log_images0_, law.beta};
    if (images_per_epoch_ > 0) p.push_back(std::log(law.reuse));
    return p;
  }

 private:
  // q of the images that count, and its slope in ln R.
  double reused(double log_r, size_t i, double* slope) const {
    const double r = std::exp(log_r);
    const double epochs = std::exp(q_[i] + log_images0_) / images_per_epoch_;
    if (epochs <= 1) return q_[i];
    const double u = (epochs - 1) / r, kept = std::exp(-u);
    const double counted = 1 + r * (1 - kept);
    *slope = r * ((1 - kept) - u * kept) / counted;
    return std::log(counted * images_per_epoch_) - log_images0_;
  }

  double images_per_epoch_;
  double log_size0_ = 0, log_images0_ = 0;
  std::vector<double> n_, q_, log_loss_;
};

void sort_points(std::vector<LawPoint>& points) {
  std::sort(points.begin(), points.end(), [](const LawPoint& a, const LawPoint& b) {
    return std::tie(a.size, a.images, a.loss) < std::tie(b.size, b.images, b.loss);
  });
}

std::vector<std::vector<double>> law_starts(const std::vector<LawPoint>& points) {
  double lowest = points[0].loss;
  for (const auto& p : points) lowest = std::min(lowest, p.loss);
  std::vector<std::vector<double>> starts;
  for (const double share : {0.3, 0.6, 0.9}) {
    std::vector<double> excess;
    excess.reserve(points.size());
    for (const auto& p : points) excess.push_back(p.loss - share * lowest);
    const double half = std::log(median(excess) / 2);
    for (const double alpha : {0.1, 0.3, 0.5, 0.8})
      for (const double beta : {0.1, 0.3, 0.5, 0.8})
        starts.push_back({std::log(share * lowest), half, alpha, half, beta});
  }
  return starts;
}

}  // namespace

double ScalingLaw::loss(double size, double images) const {
  return E + A * std::pow(size, -alpha) + B * std::pow(images, -beta);
}

double ScalingLaw::best_size(double compute) const {
  const double g = std::pow(alpha * A / (beta * B), 1 / (alpha + beta));
  return g * std::pow(compute, beta / (alpha + beta));
}

void check_law_points(std::span<const LawPoint> points, std::span<const double> budgets,
                      const LawNeeds& needs) {
  std::set<double> sizes;
  for (const auto& p : points) sizes.insert(p.size);
  const std::set<double> distinct(budgets.begin(), budgets.end());
  std::string missing;
  const auto need = [&](size_t have, int least, const char* what) {
    if (static_cast<int>(have) >= least) return;
    if (!missing.empty()) missing += ", ";
    missing += fmt::format("{} {} (at least {} are needed)", have, what, least);
  };
  need(points.size(), needs.points, "cells");
  need(sizes.size(), needs.sizes, "models");
  need(distinct.size(), needs.budgets, "epoch budgets");
  if (!missing.empty())
    throw Error(ExitCode::kData, "law", "too little for L(F, D): " + missing,
                "finish more runs; frontier and single curves need fewer");
}

ScalingLaw fit_law(std::vector<LawPoint> points, double delta) {
  sort_points(points);
  const LawModel model(points, 0);
  return model.law(fit_from_starts({&model, model.log_loss(), {}, delta}, law_starts(points)));
}

double effective_images(double images, double images_per_epoch, double reuse) {
  const double epochs = images / images_per_epoch;
  if (epochs <= 1 || reuse <= 0) return images;
  return images_per_epoch * (1 + reuse * (1 - std::exp(-(epochs - 1) / reuse)));
}

ScalingLaw fit_law_with_reuse(std::vector<LawPoint> points, double images_per_epoch, double delta) {
  sort_points(points);
  const LawModel model(points, images_per_epoch);
  std::vector<std::vector<double>> starts;
  const ScalingLaw plain = fit_law(points, delta);
  for (const double reuse : {1.0, 5.0, 15.0, 50.0, 500.0}) {
    ScalingLaw start = plain;
    start.reuse = reuse;
    starts.push_back(model.parameters_of(start));
  }
  return model.law(fit_from_starts({&model, model.log_loss(), {}, delta}, starts));
}

Interval LawBootstrap::of(double (*value)(const ScalingLaw&), double share) const {
  std::vector<double> values;
  values.reserve(laws.size());
  for (const auto& law : laws) values.push_back(value(law));
  return central_interval(std::move(values), share);
}

Interval LawBootstrap::loss(double size, double images, double share) const {
  std::vector<double> values;
  values.reserve(laws.size());
  for (const auto& law : laws) values.push_back(law.loss(size, images));
  return central_interval(std::move(values), share);
}

LawBootstrap bootstrap_law(std::vector<LawPoint> points, const ScalingLaw& law,
                           const BootstrapOptions& options, double delta) {
  sort_points(points);
  const LawModel model(points, 0);
  const std::vector<double> start = model.parameters_of(law);
  std::vector<ScalingLaw> samples(static_cast<size_t>(options.samples));
  parallel_for(options.samples, options.threads, [&](int b) {
    const auto counts = draw_counts(options.seed, b, points.size());
    samples[static_cast<size_t>(b)] =
        model.law(fit_warm({&model, model.log_loss(), counts, delta}, start));
  });
  LawBootstrap result;
  result.convergence.samples = options.samples;
  for (const auto& sample : samples)
    if (sample.converged) result.laws.push_back(sample);
  result.convergence.converged = static_cast<int>(result.laws.size());
  return result;
}

std::vector<double> log_residuals(std::span<const LawPoint> points, const ScalingLaw& law) {
  std::vector<double> residuals;
  residuals.reserve(points.size());
  for (const auto& p : points)
    residuals.push_back(std::log(p.loss) - std::log(law.loss(p.size, p.images)));
  return residuals;
}

Interval predict_interval(const LawBootstrap& bootstrap, std::span<const double> residuals,
                          double size, double images, uint64_t seed, uint64_t stream,
                          double share) {
  std::vector<double> samples;
  samples.reserve(bootstrap.laws.size());
  for (size_t b = 0; b < bootstrap.laws.size(); ++b) {
    const size_t r = draw_index(seed, static_cast<int>(b), stream, residuals.size());
    samples.push_back(bootstrap.laws[b].loss(size, images) * std::exp(residuals[r]));
  }
  return central_interval(std::move(samples), share);
}

std::vector<std::string> law_warnings(const ScalingLaw& law, std::span<const LawPoint> points) {
  std::vector<std::string> warnings;
  double lowest = points[0].loss;
  for (const auto& p : points) lowest = std::min(lowest, p.loss);
  if (law.E < 0.01 * lowest || law.E > 0.999 * lowest)
    warnings.push_back(
        fmt::format("irreducible loss not identified: E = {:.6g} beside a lowest loss of {:.6g}",
                    law.E, lowest));
  if (law.alpha <= 0) warnings.push_back("no trend with model size: alpha is not positive");
  if (law.beta <= 0) warnings.push_back("no trend with images seen: beta is not positive");
  if (!law.converged) warnings.push_back("the law's fit did not converge");
  return warnings;
}

}  // namespace nf::analysis

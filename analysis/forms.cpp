// See forms.h.
#include "analysis/forms.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"

namespace nf::analysis {
namespace {

double logistic(double v) {
  const double t = std::exp(-std::fabs(v));
  return (v >= 0 ? 1.0 : t) / (1.0 + t);
}

double log_pl(const double* p, double z, double* g) {
  if (g) {
    g[0] = 1;
    g[1] = -z;
  }
  return p[0] - p[1] * z;
}

double log_plc(const double* p, double z, double* g) {
  const double power = p[1] - p[2] * z;
  if (g) {
    const double share = logistic(power - p[0]);  // of the power law in the sum
    g[0] = 1 - share;
    g[1] = share;
    g[2] = -share * z;
  }
  return log_sum_exp(p[0], power);
}

// t with ln s - H ln(1 - s) + (1 - H) w = a - alpha z, s = logistic(t). The left side is concave or
// convex and increasing in t, so Newton's steps from beyond the root go to it from one side.
double solve_sigmoid(double w, double h, double right) {
  const double target = right - (1 - h) * w;
  double t = target > 0 ? target / h : target;
  for (int i = 0; i < 200; ++i) {
    const double s = logistic(t);
    const double value = -softplus(-t) + h * softplus(t) - target;
    const double step = value / ((1 - s) + h * s);
    t -= step;
    if (!(std::fabs(step) > 4e-16 * std::max(1.0, std::fabs(t)))) break;
  }
  return t;
}

double log_sigmoid(const double* p, double z, double* g) {
  const double e = p[0], w = p[1], h = std::exp(p[2]), a = p[3], alpha = p[4];
  const double t = solve_sigmoid(w, h, a - alpha * z);
  const double log_s = -softplus(-t);
  const double log_l = log_sum_exp(e, w + log_s);
  if (g) {
    const double s = logistic(t);
    const double share = std::exp(w + log_s - log_l);  // (L - E) / L
    const double per_t = share * (1 - s);              // d ln L / dt
    const double slope = (1 - s) + h * s;              // of the left side in t
    g[0] = 1 - share;
    g[1] = share - per_t * (1 - h) / slope;
    g[2] = -per_t * h * (softplus(t) - w) / slope;
    g[3] = per_t / slope;
    g[4] = -z * per_t / slope;
  }
  return log_l;
}

double log_broken(const double* p, double z, double* g) {
  const double c0 = p[2], d = p[3], c1 = p[4], f = std::exp(p[5]);
  const double v = (z - d) / f;
  const double bend = f * softplus(v);
  const double power = p[1] - c0 * z - c1 * bend;
  if (g) {
    const double share = logistic(power - p[0]);
    const double past = logistic(v);
    g[0] = 1 - share;
    g[1] = share;
    g[2] = -share * z;
    g[3] = share * c1 * past;
    g[4] = -share * bend;
    g[5] = -share * c1 * (bend - (z - d) * past);
  }
  return log_sum_exp(p[0], power);
}

}  // namespace

std::string_view form_name(Form form) {
  constexpr std::string_view kNames[] = {"pl", "plc", "sigmoid", "broken"};
  return kNames[static_cast<int>(form)];
}

int form_parameters(Form form) {
  constexpr int kCounts[] = {2, 3, 5, 6};
  return kCounts[static_cast<int>(form)];
}

int form_least_points(Form form) {
  constexpr int kCounts[] = {3, 4, 6, 7};
  return kCounts[static_cast<int>(form)];
}

double log_sum_exp(double a, double b) {
  const double high = std::max(a, b);
  return high + std::log1p(std::exp(std::min(a, b) - high));
}

double softplus(double v) { return std::max(v, 0.0) + std::log1p(std::exp(-std::fabs(v))); }

double log_form(Form form, const double* p, double z, double* gradient) {
  switch (form) {
    case Form::kPowerLaw:
      return log_pl(p, z, gradient);
    case Form::kPowerLawConstant:
      return log_plc(p, z, gradient);
    case Form::kSigmoid:
      return log_sigmoid(p, z, gradient);
    case Form::kBroken:
      return log_broken(p, z, gradient);
  }
  NF_CHECK(false, "unknown form");
}

double sigmoid_slope(const double* p, double t) {
  // (alpha / L) / (1 / (L - E) + H / (E0 - L)) with L - E = W s, E0 - L = W (1 - s).
  const double s = logistic(t), w = std::exp(p[1]), level = std::exp(p[0]) + w * s;
  return p[4] / level * w * s * logistic(-t) / (logistic(-t) + std::exp(p[2]) * s);
}

double sigmoid_z(const double* p, double t) {
  const double h = std::exp(p[2]);
  return (p[3] - (-softplus(-t) + h * softplus(t) + (1 - h) * p[1])) / p[4];
}

}  // namespace nf::analysis

// See compare.h.
#include "analysis/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace nf::analysis {
namespace {

constexpr int kSteps = 400;

// One family's curve: the mean of ln predictions over its forms.
struct Family {
  std::vector<CurveFit> fits;
  double log_predict(double x) const {
    double sum = 0;
    for (const CurveFit& fit : fits) sum += fit.log_predict(x);
    return sum / static_cast<double>(fits.size());
  }
};

Family fit_family(const CurveData& data, const std::vector<Form>& forms, double delta) {
  Family family;
  for (const Form form : forms) family.fits.push_back(fit_curve(data, form, delta));
  return family;
}

// The family of a bootstrap sample; no fits where one did not converge.
Family refit_family(const CurveData& data, const Family& family, uint64_t seed, int sample) {
  const auto counts = draw_counts(seed, sample, data.size());
  Family again;
  for (const CurveFit& fit : family.fits) {
    again.fits.push_back(refit_curve(data, counts, fit));
    if (!again.fits.back().converged) return {};
  }
  return again;
}

// ln x of every crossing of two curves between low and high (in ln x).
std::vector<double> crossings(const Family& a, const Family& b, double low, double high) {
  const auto gap = [&](double t) {
    return a.log_predict(std::exp(t)) - b.log_predict(std::exp(t));
  };
  std::vector<double> found;
  double left = low, value = gap(low);
  for (int i = 1; i <= kSteps; ++i) {
    const double right = low + (high - low) * i / kSteps;
    const double next = gap(right);
    if ((value > 0) != (next > 0)) {
      double l = left, r = right;
      for (int k = 0; k < 60; ++k) {
        const double middle = (l + r) / 2;
        ((gap(middle) > 0) == (value > 0) ? l : r) = middle;
      }
      found.push_back((l + r) / 2);
    }
    left = right;
    value = next;
  }
  return found;
}

// Fills in the intervals: in each bootstrap sample the crossing nearest to ours.
void add_intervals(const CurveData& a, const CurveData& b, const Family& fa, const Family& fb,
                   const BootstrapOptions& options, Comparison& result) {
  const double low = std::log(result.x_start) - std::log(2.0);
  const double high = std::log(result.x_end) + std::log(2.0);
  std::vector<std::vector<double>> samples(static_cast<size_t>(options.samples));
  std::vector<char> converged(samples.size());
  parallel_for(options.samples, options.threads, [&](int i) {
    const auto k = static_cast<size_t>(i);
    const Family sa = refit_family(a, fa, options.seed, i);
    const Family sb = refit_family(b, fb, options.seed + 1, i);
    if (sa.fits.empty() || sb.fits.empty()) return;
    converged[k] = 1;
    samples[k] = crossings(sa, sb, low, high);
  });
  const auto good = std::count(converged.begin(), converged.end(), 1);
  std::ptrdiff_t without = 0;
  for (size_t k = 0; k < samples.size(); ++k) without += converged[k] && samples[k].empty() ? 1 : 0;
  for (Crossing& crossing : result.crossings) {
    const double at = std::log(crossing.x);
    std::vector<double> near;
    for (const auto& sample : samples) {
      if (sample.empty()) continue;
      near.push_back(
          std::exp(*std::min_element(sample.begin(), sample.end(), [&](double p, double q) {
            return std::fabs(p - at) < std::fabs(q - at);
          })));
    }
    crossing.ci95 = central_interval(std::move(near), 0.95);
  }
  if (10 * good < 9 * options.samples)
    result.warnings.push_back(
        fmt::format("bootstrap: only {} of {} samples converged", good, options.samples));
  if (10 * without > good)
    result.warnings.push_back(
        fmt::format("in {} of {} bootstrap samples the curves do not cross", without, good));
}

}  // namespace

std::vector<Form> flexible_forms(size_t points) {
  const auto enough = [&](Form form) {
    return static_cast<int>(points) >= form_least_points(form);
  };
  if (enough(Form::kBroken)) return {Form::kSigmoid, Form::kBroken};
  if (enough(Form::kSigmoid)) return {Form::kSigmoid};
  return {enough(Form::kPowerLawConstant) ? Form::kPowerLawConstant : Form::kPowerLaw};
}

Comparison compare_curves(const CurveData& a, const CurveData& b, const std::vector<Form>& forms,
                          double delta, const BootstrapOptions& options) {
  const Family fa = fit_family(a, forms, delta), fb = fit_family(b, forms, delta);
  Comparison result;
  result.x_start = std::max(a.x().front(), b.x().front());
  result.x_end = std::min(a.x().back(), b.x().back());
  if (!(result.x_start < result.x_end))
    throw Error(ExitCode::kData, "compare",
                fmt::format("the tables share no range of x: {} to {} and {} to {}", a.x().front(),
                            a.x().back(), b.x().front(), b.x().back()),
                "both families must be measured over one range");
  const auto ahead = [&](double x) {
    return std::string(1, fa.log_predict(x) <= fb.log_predict(x) ? 'A' : 'B');
  };
  result.ahead_at_start = ahead(result.x_start);
  result.ahead_at_end = ahead(result.x_end);
  for (const double at : crossings(fa, fb, std::log(result.x_start), std::log(result.x_end)))
    result.crossings.push_back({std::exp(at), {}});
  if (result.crossings.empty())
    result.warnings.push_back("no crossing in the data range");
  else
    add_intervals(a, b, fa, fb, options, result);
  return result;
}

}  // namespace nf::analysis

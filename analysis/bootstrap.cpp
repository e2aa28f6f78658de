// See bootstrap.h.
#include "analysis/bootstrap.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "core/rng.h"

namespace nf::analysis {

std::vector<double> draw_counts(uint64_t seed, int index, size_t cases) {
  PositionRng rng(seed, Stream::kBootstrap, static_cast<uint64_t>(index) * 2);
  std::vector<double> counts(cases, 0);
  for (size_t i = 0; i < cases; ++i) counts[rng.below(cases)] += 1;
  return counts;
}

size_t draw_index(uint64_t seed, int index, uint64_t which, size_t n) {
  PositionRng rng(derive_key(seed, which, Stream::kBootstrap), Stream::kBootstrap,
                  static_cast<uint64_t>(index) * 2 + 1);
  return rng.below(n);
}

void parallel_for(int n, int threads, const std::function<void(int)>& work) {
  if (threads <= 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  threads = std::min(threads, n);
  std::atomic<int> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  const auto run = [&] {
    for (int i; (i = next.fetch_add(1)) < n;) {
      try {
        work(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        next = n;
      }
    }
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(run);
  run();
  for (auto& thread : others) thread.join();
  if (failure) std::rethrow_exception(failure);
}

CurveBootstrap bootstrap_curve(const CurveData& data, const CurveFit& fit,
                               const BootstrapOptions& options) {
  std::vector<std::optional<CurveFit>> samples(static_cast<size_t>(options.samples));
  parallel_for(options.samples, options.threads, [&](int b) {
    CurveFit sample = refit_curve(data, draw_counts(options.seed, b, data.size()), fit);
    if (sample.converged) samples[static_cast<size_t>(b)] = std::move(sample);
  });
  CurveBootstrap result;
  result.seed = options.seed;
  result.convergence.samples = options.samples;
  for (size_t b = 0; b < samples.size(); ++b) {
    if (!samples[b]) continue;
    result.fits.push_back(std::move(*samples[b]));
    result.index.push_back(static_cast<int>(b));
  }
  result.convergence.converged = static_cast<int>(result.fits.size());
  result.residuals.reserve(data.size());
  for (size_t i = 0; i < data.size(); ++i)
    result.residuals.push_back(data.log_y()[i] - fit.log_predict(data.x()[i]));
  return result;
}

std::vector<Interval> CurveBootstrap::parameters(double share) const {
  if (!convergence.usable()) return {};
  std::vector<std::vector<double>> values;
  for (const CurveFit& fit : fits) {
    const NamedValues named = fit.named();
    values.resize(std::max(values.size(), named.size()));
    for (size_t i = 0; i < named.size(); ++i) values[i].push_back(named[i].second);
  }
  std::vector<Interval> intervals;
  for (auto& v : values) intervals.push_back(central_interval(std::move(v), share));
  return intervals;
}

Interval CurveBootstrap::prediction(double x, double share) const {
  std::vector<double> values;
  for (size_t i = 0; i < fits.size(); ++i) {
    const size_t r = draw_index(seed, index[i], 1, residuals.size());
    values.push_back(std::exp(fits[i].log_predict(x) + residuals[r]));
  }
  return central_interval(std::move(values), share);
}

Interval CurveBootstrap::curve(double x, double share) const {
  std::vector<double> values;
  values.reserve(fits.size());
  for (const CurveFit& fit : fits) values.push_back(fit.predict(x));
  return central_interval(std::move(values), share);
}

}  // namespace nf::analysis

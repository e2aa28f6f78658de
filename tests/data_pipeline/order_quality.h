// The statistics that an order must pass: a 64 x 64 table of pairs of buckets, chi-squared, given
// as a z score. A good order stays within a few units of 0; a linear generator or a network of too
// few rounds reaches tens to thousands. One checker for the real permutation and for planted bad
// ones, so that a test of the first shows what the second would do.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

namespace nf::test {

// Anything that maps [0, n) to [0, n).
using Order = std::function<uint64_t(uint64_t)>;

inline constexpr uint64_t kBuckets = 64;

// z of `pairs` pairs (first(i), second(i)), i = 0, stride, 2 stride...: 0 when the two values are
// independent and uniform.
inline double pair_z(uint64_t n, const Order& first, const Order& second, uint64_t pairs,
                     uint64_t stride = 1) {
  std::vector<uint64_t> table(kBuckets * kBuckets);
  const auto bucket = [n](uint64_t value) {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(value) * kBuckets / n);
  };
  for (uint64_t k = 0; k < pairs; ++k) {
    const uint64_t i = k * stride;
    ++table[bucket(first(i)) * kBuckets + bucket(second(i))];
  }
  const double expected = static_cast<double>(pairs) / static_cast<double>(table.size());
  double chi_squared = 0;
  for (const uint64_t count : table) {
    const double difference = static_cast<double>(count) - expected;
    chi_squared += difference * difference / expected;
  }
  const double freedom = static_cast<double>(table.size() - 1);
  return (chi_squared - freedom) / std::sqrt(2 * freedom);
}

// The largest |z| of serial pairs (order(i), order(i + lag)) over the lags that fit.
inline double worst_serial_z(uint64_t n, const Order& order, uint64_t pairs,
                             const std::vector<uint64_t>& lags) {
  double worst = 0;
  for (const uint64_t lag : lags) {
    if (lag + pairs > n) continue;
    const double z = pair_z(
        n, order, [&](uint64_t i) { return order(i + lag); }, pairs);
    worst = std::max(worst, std::abs(z));
  }
  return worst;
}

// Beyond this an order counts as bad: a chance of about 1e-6 for a good one, so that hundreds of
// scores may be asked for.
inline constexpr double kBadZ = 5.0;

}  // namespace nf::test

// See rng.h.
#include "core/rng.h"

#include <cmath>

namespace nf {

Philox4 philox4x32(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  constexpr uint64_t kM0 = 0xD2511F53, kM1 = 0xCD9E8D57;
  constexpr uint32_t kW0 = 0x9E3779B9, kW1 = 0xBB67AE85;
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  uint32_t c0 = static_cast<uint32_t>(counter_low), c1 = static_cast<uint32_t>(counter_low >> 32);
  uint32_t c2 = static_cast<uint32_t>(counter_high), c3 = static_cast<uint32_t>(counter_high >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = kM0 * c0, p1 = kM1 * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += kW0;
    k1 += kW1;
  }
  return {c0, c1, c2, c3};
}

uint64_t derive_key(uint64_t seed, uint64_t number, Stream role) {
  const Philox4 r = philox4x32(seed, number, 0x6E6673636B657900ull + static_cast<uint32_t>(role));
  return r[0] | static_cast<uint64_t>(r[1]) << 32;
}

PositionRng::PositionRng(uint64_t seed, Stream stream, uint64_t position)
    : key_(derive_key(seed, 0, stream)), position_(position) {}

uint32_t PositionRng::next_u32() {
  if (used_ == 4) {
    buffer_ = philox4x32(key_, position_, block_++);
    used_ = 0;
  }
  return buffer_[used_++];
}

uint64_t PositionRng::next_u64() {
  const uint64_t low = next_u32();
  return low | static_cast<uint64_t>(next_u32()) << 32;
}

double PositionRng::uniform() { return static_cast<double>(next_u64() >> 11) * 0x1.0p-53; }

double PositionRng::uniform(double low, double high) { return low + (high - low) * uniform(); }

uint64_t PositionRng::below(uint64_t n) {
  // Multiply-shift: the bias is below n / 2^64.
  return static_cast<uint64_t>((static_cast<unsigned __int128>(next_u64()) * n) >> 64);
}

double PositionRng::normal() {
  const double u = 1.0 - uniform();  // (0, 1]
  const double v = uniform();
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * 3.14159265358979323846 * v);
}

double PositionRng::gamma(double shape) {
  if (shape < 1.0) {
    const double u = 1.0 - uniform();
    return gamma(shape + 1.0) * std::pow(u, 1.0 / shape);
  }
  const double d = shape - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const double x = normal();
    const double v = 1.0 + c * x;
    if (v <= 0.0) continue;
    const double v3 = v * v * v, u = 1.0 - uniform();
    if (std::log(u) < 0.5 * x * x + d - d * v3 + d * std::log(v3)) return d * v3;
  }
}

double PositionRng::beta(double a, double b) {
  const double x = gamma(a), y = gamma(b);
  return x + y > 0.0 ? x / (x + y) : (a >= b ? 1.0 : 0.0);
}

}  // namespace nf

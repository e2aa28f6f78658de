// Counter-based random numbers: every draw is a pure function of (seed, stream, position, draw
// index), so data order, augmentation and masks cannot depend on threads, ranks or restarts.
// Nothing in the project draws from a global generator. Philox4x32-10: Salmon et al., "Parallel
// random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include <array>
#include <cstdint>

namespace nf {

using Philox4 = std::array<uint32_t, 4>;

// Ten rounds of Philox4x32. key: 64 bits; counter: 128 bits as (low, high).
Philox4 philox4x32(uint64_t key, uint64_t counter_low, uint64_t counter_high);

// What a generator is used for. Fixed numbers: they are part of a run's bits and never change their
// meaning.
enum class Stream : uint32_t {
  kDataOrder = 1,
  kAugment = 2,
  kStochasticDepth = 3,
  kDropout = 4,
  kInit = 5,
  kHoldout = 6,
  kMix = 7,
  kBootstrap = 8,
  kTest = 99
};

// A 64-bit key from a seed, a number (an epoch, a tensor index) and a role. Not additive: (seed, n
// + 1) and (seed + 1, n) are unrelated.
uint64_t derive_key(uint64_t seed, uint64_t number, Stream role);

// The draws that belong to one position (a sample's place in the run, or any other index) of one
// stream.
class PositionRng {
 public:
  PositionRng(uint64_t seed, Stream stream, uint64_t position);

  uint32_t next_u32();
  uint64_t next_u64();
  double uniform();                         // [0, 1), 53 bits
  double uniform(double low, double high);  // [low, high)
  uint64_t below(uint64_t n);               // [0, n), unbiased to 2^-64; n > 0
  double normal();                          // standard normal, Box-Muller
  double gamma(double shape);               // Marsaglia and Tsang 2000; shape > 0
  double beta(double a, double b);          // a, b > 0

 private:
  uint64_t key_;
  uint64_t position_;
  uint64_t block_ = 0;
  Philox4 buffer_{};
  int used_ = 4;
};

}  // namespace nf

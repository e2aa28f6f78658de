// Which sample stands at which position of a run: pure arithmetic, no state. Position g: epoch g / N, sample =
// permutation(key(seed, epoch))(g mod N). With repeat r > 1 (repeated augmentation) each sample stands r times in an
// "epoch" of r N positions, its copies r-adjacent slots of the same batch.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "data_pipeline/permutation.h"

namespace nf::data {

enum class Shuffle { kNone, kGlobal, kWindowed };

struct SamplerOptions {
  uint64_t samples = 0;         // N > 0
  uint64_t seed = 0;
  Shuffle shuffle = Shuffle::kGlobal;
  uint64_t repeat = 1;          // repeated augmentation
  uint64_t shard_samples = 8192;  // kWindowed: samples per shard (the last one may hold fewer)
  uint64_t window_shards = 16;    // kWindowed: shards that are shuffled together
};

struct SampleAt {
  uint64_t epoch;
  uint64_t sample;  // index in the split, [0, N)
};

class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);

  SampleAt at(uint64_t position) const;
  // samples of positions [begin, begin + out.size()).
  void fill(uint64_t begin, std::span<uint64_t> out) const;
  // The (first) position at which a sample is seen in an epoch; the inverse of at().
  uint64_t position_of(uint64_t sample, uint64_t epoch) const;
  uint64_t positions_per_epoch() const;  // N x repeat
  const SamplerOptions& options() const { return options_; }

 private:
  SamplerOptions options_;
};

// round(epochs * N) positions: the length of a run (design, section 3). epochs may be a fraction.
uint64_t positions_in_run(double epochs, uint64_t samples);

}  // namespace nf::data

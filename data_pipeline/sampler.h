// Which sample stands at which position of a run: pure arithmetic, no state. Position g: epoch g /
// N, sample = permutation(key(seed, epoch))(g mod N). With repeat r > 1 (repeated augmentation)
// each sample stands r times in an "epoch" of r N positions, its copies r-adjacent slots of the
// same batch.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "data_pipeline/permutation.h"

namespace nf::data {

enum class Shuffle { kNone, kGlobal, kWindowed };

struct SamplerOptions {
  uint64_t samples = 0;  // N > 0
  uint64_t seed = 0;
  Shuffle shuffle = Shuffle::kGlobal;
  uint64_t repeat = 1;            // repeated augmentation
  uint64_t shard_samples = 8192;  // kWindowed: samples per shard (the last one may hold fewer)
  uint64_t window_shards = 16;    // kWindowed: shards that are shuffled together
};

struct SampleAt {
  uint64_t epoch;
  uint64_t sample;  // index in the split, [0, N)
};

// The order of one epoch: an immutable bijection of [0, N). Thread-safe; hold one where many
// positions of an epoch are asked for one by one.
class EpochOrder {
 public:
  EpochOrder(const SamplerOptions& options, uint64_t epoch);

  uint64_t epoch() const { return epoch_; }
  uint64_t at(uint64_t rank) const;         // the rank-th sample of the epoch, rank < N
  uint64_t rank_of(uint64_t sample) const;  // the inverse
  void fill(uint64_t begin, std::span<uint64_t> out) const;  // ranks [begin, begin + out.size())

 private:
  // A windowed order: full shards are permuted and cut into groups of window_shards; inside a group
  // all samples are permuted. What is left (fewer full shards than a window, and the last shard if
  // it is short) forms one shorter group at a place of the epoch that is drawn too, so that no
  // sample is always last.
  struct Group {
    uint64_t begin, size;  // ranks of the epoch
    uint64_t first_shard;  // in the permuted sequence of full shards
    uint64_t full_shards;  // samples past them are those of the short shard
    uint64_t number;       // which key permutes it
  };
  Group group_of_rank(uint64_t rank) const;
  Group group(uint64_t number) const;
  Permutation inside(const Group& group) const;
  uint64_t sample_in(const Group& group, uint64_t slot) const;
  void place_in(const Group& group, std::span<uint64_t> slots) const;

  uint64_t epoch_, samples_, key_;
  Shuffle shuffle_;
  uint64_t shard_samples_ = 0, window_shards_ = 0;
  uint64_t full_shards_ = 0, full_groups_ = 0, short_group_at_ = 0;
  std::optional<Permutation> order_;  // of samples (global) or of full shards (windowed)
};

class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);

  // at(), fill() and position_of() may be called from any number of threads. The order of the last
  // epoch asked for is kept.
  SampleAt at(uint64_t position) const;
  // samples of positions [begin, begin + out.size()).
  void fill(uint64_t begin, std::span<uint64_t> out) const;
  // The (first) position at which a sample is seen in an epoch; the inverse of at().
  uint64_t position_of(uint64_t sample, uint64_t epoch) const;
  uint64_t positions_per_epoch() const;  // N x repeat
  const SamplerOptions& options() const { return options_; }
  std::shared_ptr<const EpochOrder> epoch_order(uint64_t epoch) const;

 private:
  struct LastEpoch;

  SamplerOptions options_;
  std::shared_ptr<LastEpoch> last_;  // shared by copies: equal options, equal orders
};

// round(epochs * N) positions: the length of a run (design, section 3). epochs may be a fraction.
uint64_t positions_in_run(double epochs, uint64_t samples);

}  // namespace nf::data

// See sampler.h.
#include "data_pipeline/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <mutex>
#include <numeric>
#include <vector>

#include "core/check.h"
#include "core/rng.h"

namespace nf::data {

EpochOrder::EpochOrder(const SamplerOptions& options, uint64_t epoch)
    : epoch_(epoch),
      samples_(options.samples),
      key_(derive_key(options.seed, epoch, Stream::kDataOrder)),
      shuffle_(options.shuffle) {
  NF_CHECK(samples_ > 0, "EpochOrder: no samples");
  if (shuffle_ == Shuffle::kGlobal) order_.emplace(samples_, key_);
  if (shuffle_ != Shuffle::kWindowed) return;
  NF_CHECK(options.shard_samples > 0 && options.window_shards > 0, "EpochOrder: empty window");
  // A window larger than the data set is the data set; this also keeps the products below in range.
  shard_samples_ = std::min(options.shard_samples, samples_);
  full_shards_ = samples_ / shard_samples_;
  window_shards_ = std::min(options.window_shards, full_shards_);
  full_groups_ = full_shards_ / window_shards_;
  order_.emplace(full_shards_, key_);
  PositionRng rng(key_, Stream::kDataOrder, samples_);
  short_group_at_ = rng.below(full_groups_ + 1);
}

// Groups are numbered in the order of the epoch; the short one is number short_group_at_ and may be
// empty.
EpochOrder::Group EpochOrder::group(uint64_t number) const {
  const uint64_t group_size = window_shards_ * shard_samples_;
  const uint64_t short_size = samples_ - full_groups_ * group_size;
  if (number == short_group_at_) {
    const uint64_t first = full_groups_ * window_shards_;
    return {number * group_size, short_size, first, full_shards_ - first, number};
  }
  if (number < short_group_at_) {
    return {number * group_size, group_size, number * window_shards_, window_shards_, number};
  }
  return {(number - 1) * group_size + short_size, group_size, (number - 1) * window_shards_,
          window_shards_, number};
}

EpochOrder::Group EpochOrder::group_of_rank(uint64_t rank) const {
  const uint64_t group_size = window_shards_ * shard_samples_;
  const Group shorter = group(short_group_at_);
  if (rank < shorter.begin) return group(rank / group_size);
  if (rank < shorter.begin + shorter.size) return shorter;
  return group((rank - shorter.size) / group_size + 1);
}

Permutation EpochOrder::inside(const Group& group) const {
  return Permutation(group.size, derive_key(key_, group.number, Stream::kDataOrder));
}

uint64_t EpochOrder::sample_in(const Group& group, uint64_t slot) const {
  const uint64_t shard = slot / shard_samples_, row = slot % shard_samples_;
  const uint64_t stored =
      shard < group.full_shards ? order_->at(group.first_shard + shard) : full_shards_;
  return stored * shard_samples_ + row;
}

uint64_t EpochOrder::at(uint64_t rank) const {
  NF_CHECK(rank < samples_, "EpochOrder::at: rank past the end");
  if (shuffle_ == Shuffle::kNone) return rank;
  if (shuffle_ == Shuffle::kGlobal) return order_->at(rank);
  const Group g = group_of_rank(rank);
  return sample_in(g, inside(g).at(rank - g.begin));
}

uint64_t EpochOrder::rank_of(uint64_t sample) const {
  NF_CHECK(sample < samples_, "EpochOrder::rank_of: sample past the end");
  if (shuffle_ == Shuffle::kNone) return sample;
  if (shuffle_ == Shuffle::kGlobal) return order_->inverse(sample);
  const uint64_t stored = sample / shard_samples_, row = sample % shard_samples_;
  // The short shard's place in the sequence of shards is behind all full ones.
  const uint64_t shard = stored < full_shards_ ? order_->inverse(stored) : full_shards_;
  uint64_t number = short_group_at_;
  if (shard < full_groups_ * window_shards_) {
    number = shard / window_shards_;
    if (number >= short_group_at_) ++number;
  }
  const Group g = group(number);
  return g.begin + inside(g).inverse((shard - g.first_shard) * shard_samples_ + row);
}

void EpochOrder::fill(uint64_t begin, std::span<uint64_t> out) const {
  NF_CHECK(begin <= samples_ && out.size() <= samples_ - begin, "EpochOrder::fill: past the end");
  if (shuffle_ == Shuffle::kNone) std::iota(out.begin(), out.end(), begin);
  if (shuffle_ == Shuffle::kGlobal) order_->fill(begin, out);
  if (shuffle_ != Shuffle::kWindowed) return;
  for (size_t done = 0; done < out.size();) {
    const Group g = group_of_rank(begin + done);
    const uint64_t slot = begin + done - g.begin;
    const auto part = out.subspan(done, std::min<uint64_t>(out.size() - done, g.size - slot));
    inside(g).fill(slot, part);
    place_in(g, part);
    done += part.size();
  }
}

// Slots of a group become samples. With at least as many slots as shards it pays to look up every
// shard of the group once.
void EpochOrder::place_in(const Group& g, std::span<uint64_t> slots) const {
  if (g.full_shards > slots.size()) {
    for (uint64_t& slot : slots) slot = sample_in(g, slot);
    return;
  }
  std::vector<uint64_t> shift(g.full_shards);  // from a slot of the k-th shard to its sample
  order_->fill(g.first_shard, shift);
  shift.push_back(full_shards_);  // the short shard, behind the full ones
  for (uint64_t k = 0; k < shift.size(); ++k) shift[k] = (shift[k] - k) * shard_samples_;
  if (std::has_single_bit(shard_samples_)) {
    const int bits = std::countr_zero(shard_samples_);
    for (uint64_t& slot : slots) slot += shift[slot >> bits];
  } else {
    for (uint64_t& slot : slots) slot += shift[slot / shard_samples_];
  }
}

struct Sampler::LastEpoch {
  std::mutex mutex;
  std::shared_ptr<const EpochOrder> order;
};

Sampler::Sampler(const SamplerOptions& options)
    : options_(options), last_(std::make_shared<LastEpoch>()) {
  NF_CHECK(options.samples > 0, "Sampler: no samples");
  NF_CHECK(options.repeat > 0, "Sampler: repeat must be at least 1");
  NF_CHECK(options.samples <= (uint64_t{1} << 63) / options.repeat, "Sampler: data set too large");
}

std::shared_ptr<const EpochOrder> Sampler::epoch_order(uint64_t epoch) const {
  const std::lock_guard lock(last_->mutex);
  if (!last_->order || last_->order->epoch() != epoch) {
    last_->order = std::make_shared<const EpochOrder>(options_, epoch);
  }
  return last_->order;
}

uint64_t Sampler::positions_per_epoch() const { return options_.samples * options_.repeat; }

SampleAt Sampler::at(uint64_t position) const {
  const uint64_t epoch = position / positions_per_epoch();
  const uint64_t rank = position % positions_per_epoch() / options_.repeat;
  return {epoch, epoch_order(epoch)->at(rank)};
}

void Sampler::fill(uint64_t begin, std::span<uint64_t> out) const {
  const uint64_t repeat = options_.repeat;
  for (size_t done = 0; done < out.size();) {
    const uint64_t epoch = (begin + done) / positions_per_epoch();
    const uint64_t slot = (begin + done) % positions_per_epoch();
    const uint64_t count = std::min<uint64_t>(out.size() - done, positions_per_epoch() - slot);
    const auto part = out.subspan(done, count);
    const auto order = epoch_order(epoch);
    if (repeat == 1) {
      order->fill(slot, part);
    } else {
      // The distinct samples first, then each spread over its copies, back to front so that none is
      // overwritten early.
      const uint64_t first = slot / repeat, last = (slot + count - 1) / repeat;
      order->fill(first, part.first(last - first + 1));
      for (uint64_t k = count; k-- > 0;) part[k] = part[(slot + k) / repeat - first];
    }
    done += count;
  }
}

uint64_t Sampler::position_of(uint64_t sample, uint64_t epoch) const {
  NF_CHECK(sample < options_.samples, "Sampler::position_of: sample past the end");
  NF_CHECK(epoch < std::numeric_limits<uint64_t>::max() / positions_per_epoch(),
           "Sampler::position_of: epoch past the end of time");
  return epoch * positions_per_epoch() + epoch_order(epoch)->rank_of(sample) * options_.repeat;
}

uint64_t positions_in_run(double epochs, uint64_t samples) {
  const double positions = std::round(epochs * static_cast<double>(samples));
  NF_CHECK(positions >= 0 && positions < 0x1p63, "positions_in_run: out of range");
  return static_cast<uint64_t>(positions);
}

}  // namespace nf::data

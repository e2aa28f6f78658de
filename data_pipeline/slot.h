// What happens to one slot of a batch: read, decode, crop, then the recipe's mixing with a second
// sample and RandAugment. A function of (data set, options, seed, position): any thread may do it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "data_pipeline/augment.h"
#include "data_pipeline/shard_dataset.h"

namespace nf::data {

// Memory that one thread keeps from slot to slot.
struct SlotMemory {
  SampleView sample, partner;
  LoadScratch scratch;
  std::vector<uint8_t> partner_pixels, spare;
};

struct SlotResult {
  std::vector<int32_t> labels, mix_labels;  // mix_labels: of the partner, empty without one
  float ratio = 1;                          // weight of `labels` against `mix_labels`
  SampleFault fault;
};

struct SlotSource {
  uint64_t position = 0, sample = 0;
  std::optional<uint64_t> partner;  // the second image's sample, when the options mix
};

// Fills pixels ([image_size, image_size, 3]). A bad sample has a fault, gray pixels and labels that
// may be indexed by; a bad partner is left out: the first image then stays alone, with ratio 1.
// Throws Error(kData) for a shard that is not the right one.
SlotResult fill_slot(const ShardDataset& dataset, const AugmentOptions& options, uint64_t seed,
                     const SlotSource& source, uint8_t* pixels, SlotMemory& memory);

}  // namespace nf::data

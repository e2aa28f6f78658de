// "When is this sample seen?", answered by the inverse of the order: no run needed, no list
// searched.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "core/jsonl.h"
#include "data_pipeline/sampler.h"

namespace nf::data {

struct WhereQuery {
  std::string split = "train";
  uint64_t seed = 0;
  uint64_t sample = 0;  // index in the split
  uint64_t epoch = 0;
  Shuffle shuffle = Shuffle::kGlobal;
  uint64_t repeat = 1;
  uint64_t window_shards = 16;
  uint64_t batch_size = 0;  // 0: the answer leaves the step out
};

// {"split", "samples", "sample", "epoch", "position", "repeat"} and with a batch size "step"
// (counting from 1: the update that uses the sample first) and "slot" (its place in the batch).
// Throws Error(kData, kUsage): no such split or sample.
Json answer_where(const std::filesystem::path& dataset, const WhereQuery& query);

}  // namespace nf::data

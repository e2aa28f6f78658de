// See synthetic_set.h.
#include "bench/synthetic_set.h"

#include <algorithm>
#include <string>

#include "core/rng.h"
#include "data_pipeline/dataset_index.h"
#include "data_pipeline/jpeg.h"
#include "data_pipeline/shard_format.h"
#include "data_pipeline/shard_writer.h"

namespace nf::bench {
namespace {

namespace fs = std::filesystem;
using namespace data;

int32_t label_of(uint64_t sample) { return static_cast<int32_t>(sample % 10); }

data::ShardEntry write_one(const SyntheticSet& set, uint64_t shard, uint64_t begin, uint64_t end) {
  ShardTable table;
  table.split = "train";
  table.fingerprint = std::string(64, 'f');
  table.first_index = begin;
  std::vector<std::vector<uint8_t>> bytes;
  for (uint64_t i = begin; i < end; ++i) {
    bytes.push_back(set.bytes(i));
    const int32_t label = label_of(i);
    table.add(sample_crc32c(i, {&label, 1}, bytes.back()), bytes.back().size(), {&label, 1}, 1, 1);
  }
  const std::string name = shard_file_name("train", shard);
  write_shard(set.folder / name, table,
              [&](uint64_t i) { return std::span<const uint8_t>(bytes[i]); });
  return {name, end - begin, fs::file_size(set.folder / name), std::string(64, '0')};
}

}  // namespace

void write_synthetic_set(const SyntheticSet& set) {
  fs::create_directories(set.folder);
  DatasetIndex index;
  for (int c = 0; c < 10; ++c) index.class_names.push_back("class" + std::to_string(c));
  SplitEntry split;
  split.name = "train";
  split.samples = set.samples;
  split.shard_samples = set.shard_samples;
  split.fingerprint = std::string(64, 'f');
  uint64_t full_size = 0;
  for (uint64_t begin = 0; begin < set.samples; begin += set.shard_samples) {
    const uint64_t shard = begin / set.shard_samples;
    const uint64_t end = std::min(set.samples, begin + set.shard_samples);
    if (!set.written || set.written(shard)) {
      split.shards.push_back(write_one(set, shard, begin, end));
      full_size = std::max(full_size, split.shards.back().bytes);
    } else {
      split.shards.push_back(
          {shard_file_name("train", shard), end - begin, 0, std::string(64, '0')});
    }
  }
  for (ShardEntry& shard : split.shards)
    if (shard.bytes == 0) shard.bytes = full_size;
  index.splits = {split};
  write_dataset_index(set.folder, index);
}

std::vector<uint8_t> synthetic_jpeg(int side, uint64_t number) {
  Image image;
  image.width = image.height = side;
  PositionRng rng(number, Stream::kTest, 0);
  for (int k = 0; k < side * side * 3; ++k)
    image.rgb.push_back(static_cast<uint8_t>(100 + (k / 3 % side) * 50 / side + rng.below(40)));
  return encode_jpeg(image, 85);
}

}  // namespace nf::bench

// A data set written by the library's own parts from samples whose bytes are no images: for tests
// of the store alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/hash.h"
#include "data_pipeline/dataset_index.h"
#include "data_pipeline/shard_format.h"
#include "data_pipeline/shard_writer.h"
#include "tests/data_pipeline/store_fixtures.h"

namespace nf::test {

struct StoredSample {
  ByteVector bytes;
  std::vector<int32_t> labels;
  uint16_t width, height;
};

inline std::vector<StoredSample> make_samples(size_t count) {
  std::vector<StoredSample> samples;
  for (size_t i = 0; i < count; ++i) {
    StoredSample s;
    for (size_t k = 0; k < 20 + 7 * i % 50; ++k)
      s.bytes.push_back(static_cast<uint8_t>(i * 31 + k * 7));
    for (size_t k = 0; k <= i % 3; ++k) s.labels.push_back(static_cast<int32_t>(i + k));
    s.width = static_cast<uint16_t>(i + 1);
    s.height = static_cast<uint16_t>(1000 - i);
    samples.push_back(s);
  }
  return samples;
}

// One split "train", two classes.
inline void write_dataset(const std::filesystem::path& folder,
                          const std::vector<StoredSample>& samples, uint64_t shard_samples) {
  namespace fs = std::filesystem;
  using namespace data;
  fs::create_directories(folder);
  DatasetIndex index;
  index.class_names = {"a", "b"};
  SplitEntry split;
  split.name = "train";
  split.samples = samples.size();
  split.shard_samples = shard_samples;
  SplitFingerprint fingerprint(index.class_names);
  for (size_t i = 0; i < samples.size(); ++i) {
    fingerprint.add(sample_crc32c(i, samples[i].labels, samples[i].bytes), samples[i].bytes.size(),
                    samples[i].labels);
    split.bytes += samples[i].bytes.size();
  }
  split.fingerprint = fingerprint.hex();
  for (uint64_t begin = 0; begin < samples.size(); begin += shard_samples) {
    ShardTable table;
    table.split = "train";
    table.fingerprint = split.fingerprint;
    table.first_index = begin;
    const uint64_t end = std::min<uint64_t>(samples.size(), begin + shard_samples);
    for (uint64_t i = begin; i < end; ++i) {
      const StoredSample& s = samples[i];
      table.add(sample_crc32c(i, s.labels, s.bytes), s.bytes.size(), s.labels, s.width, s.height);
    }
    const std::string name = shard_file_name("train", begin / shard_samples);
    write_shard(folder / name, table,
                [&](uint64_t i) { return std::span<const uint8_t>(samples[begin + i].bytes); });
    split.shards.push_back(
        {name, end - begin, fs::file_size(folder / name), sha256_file(folder / name)});
  }
  index.splits = {split};
  write_dataset_index(folder, index);
}

}  // namespace nf::test

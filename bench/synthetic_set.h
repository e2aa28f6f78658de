// Data sets for benchmarks, written by the library's own parts: any number of shards, of which only
// those that a benchmark reads need be on the disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

namespace nf::bench {

struct SyntheticSet {
  std::filesystem::path folder;
  uint64_t samples = 0;
  uint64_t shard_samples = 8192;
  // Bytes of sample i; every sample must have the same length when not all shards are written.
  std::function<std::vector<uint8_t>(uint64_t)> bytes;
  // Which shards are written; empty: all. dataset.json names all of them in any case.
  std::function<bool(uint64_t shard)> written;
};

// Split "train", one label per sample, 10 classes. Throws Error when the disk refuses.
void write_synthetic_set(const SyntheticSet& set);

// A JPEG of side x side pixels, the same for equal arguments.
std::vector<uint8_t> synthetic_jpeg(int side, uint64_t number);

}  // namespace nf::bench

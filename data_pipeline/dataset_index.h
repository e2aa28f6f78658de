// dataset.json: the table of contents of a data set, written last, so that a data set without it
// does not exist.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace nf::data {

inline constexpr const char* kDatasetFile = "dataset.json";
inline constexpr const char* kRejectedFile = "rejected.tsv";
inline constexpr int kDatasetVersion = 1;

struct ShardEntry {
  std::string file;  // name in the data set's folder
  uint64_t samples = 0, bytes = 0;
  std::string sha256;
};

struct SplitEntry {
  std::string name;
  uint64_t samples = 0, shard_samples = 0, bytes = 0;  // bytes of all image files together
  uint64_t rejected = 0;                               // input files that were refused
  bool multi_label = false;
  std::string fingerprint;  // of the content
  std::string
      source;  // of the input and the options: tells whether a finished pack is the one asked for
  std::vector<ShardEntry> shards;
};

struct DatasetIndex {
  std::vector<std::string> class_names;
  std::vector<SplitEntry> splits;  // sorted by name

  const SplitEntry* find(const std::string& split) const;
};

// Throws Error(kData): folder or file missing, not JSON, fields missing or wrong, another format
// version.
DatasetIndex read_dataset_index(const std::filesystem::path& directory);
// True when the folder holds a dataset.json.
bool has_dataset_index(const std::filesystem::path& directory);
// Replaces dataset.json atomically.
void write_dataset_index(const std::filesystem::path& directory, const DatasetIndex& index);

// Reads the shards of a split (all splits when empty) completely and compares size and SHA-256 with
// dataset.json. One line for each problem; none: intact.
std::vector<std::string> verify_shards(const std::filesystem::path& directory,
                                       const std::string& split = {});

}  // namespace nf::data

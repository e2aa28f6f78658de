// Reads a packed data set (contract, "Data set"): dataset.json for the table of contents, HDF5 for
// each shard's layout, pread for the bytes. At most 64 shard files are open at a time. Thread-safe:
// any number of threads may read at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace nf::data {

// One stored sample. The vectors are reused between calls to keep the loader free of allocation.
struct SampleData {
  std::vector<uint8_t> bytes;   // encoded image file
  std::vector<int32_t> labels;  // one or more class indices
  uint16_t width = 0, height = 0;
};

// Why a sample could not be used; ok() when it could.
struct SampleFault {
  std::string reason;  // empty: no fault
  bool ok() const { return reason.empty(); }
};

class ShardDataset {
 public:
  // Opens `split` of the data set in `directory`. Throws Error(kData): missing folder or split,
  // wrong format version, shard missing, truncated or of another data set. With more than 256
  // shards each is checked when it is first read, and read() throws what is wrong with it.
  ShardDataset(const std::filesystem::path& directory, const std::string& split);
  ~ShardDataset();
  ShardDataset(const ShardDataset&) = delete;
  ShardDataset& operator=(const ShardDataset&) = delete;

  uint64_t size() const;                                // samples in the split
  const std::vector<std::string>& class_names() const;  // of the whole data set
  std::string fingerprint() const;  // of the split: hex; equal content, equal fingerprint
  uint64_t shard_samples() const;   // samples per full shard
  // Reads sample `index` and checks its CRC32C (over id, labels and bytes). A mismatch or a short
  // read is a fault, not an exception: the sample keeps its slot with weight 0.
  SampleFault read(uint64_t index, SampleData& out) const;
  // The same without the checksum: only to measure what the check costs.
  SampleFault read_unchecked(uint64_t index, SampleData& out) const;
  // A hint that the sample will be read soon: the system may fetch it meanwhile. Never fails.
  void will_need(uint64_t index) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nf::data

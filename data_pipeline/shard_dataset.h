// Reads a packed data set (contract, "Data set"): dataset.json for the table of contents, HDF5 for
// each shard's layout, pread or a map of the file for the bytes. At most 64 shard files are open at
// a time. Thread-safe: any number of threads may read at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
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

// How the bytes of samples are got. The samples and their faults are the same.
struct ReadOptions {
  // False: copied. True: used where they lie in the mapped file; a shard that cannot be mapped is
  // copied from.
  bool mapped = false;
  // A map costs as much as a few copies, so a shard is mapped when it was asked for this often.
  uint64_t copies_before_map = 32;
};

class OpenShard;

// A sample whose bytes may lie in a mapped shard. Belongs to one thread; must not outlive its data
// set.
struct SampleView {
  std::span<const uint8_t> bytes;         // until release() or the next view()
  SampleData data;                        // labels and size; its bytes only if they were copied
  std::shared_ptr<const OpenShard> held;  // where `bytes` lie, null if they were copied

  void release() {  // lets go of the shard
    bytes = {};
    held.reset();
  }
};

class ShardDataset {
 public:
  // Opens `split` of the data set in `directory`. Throws Error(kData): missing folder or split,
  // wrong format version, shard missing, truncated or of another data set. With more than 256
  // shards each is checked when it is first read, and read() throws what is wrong with it.
  ShardDataset(const std::filesystem::path& directory, const std::string& split,
               const ReadOptions& how = {});
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
  // The same without a copy where the shard is mapped. A map shows what becomes of the file later,
  // so after the last use of out.bytes is_doubtful(out) must be asked: if true, what was made of
  // them is worth nothing, and view_copy() has to be used instead.
  SampleFault view(uint64_t index, SampleView& out) const;
  bool is_doubtful(const SampleView& view) const;
  SampleFault view_copy(uint64_t index, SampleView& out) const;
  // read() without the checksum: only to measure what the check costs.
  SampleFault read_unchecked(uint64_t index, SampleData& out) const;
  // A hint that the sample will be read soon: the system may fetch it meanwhile. Never fails.
  void will_need(uint64_t index) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nf::data

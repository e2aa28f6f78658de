// The shards that are open at the moment: at most a fixed number, the least recently used one
// closed first. A shard that is read often keeps its small arrays in memory, so that a sample costs
// one read of its bytes and nothing else.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "data_pipeline/shard_arrays.h"

namespace nf::data {

// What the small arrays say about one sample.
struct SampleRow {
  uint64_t offset[2] = {0, 0};
  uint32_t label_offset[2] = {0, 0};
  uint32_t crc32c = 0;
  uint16_t width = 0, height = 0;
};

class OpenShard {
 public:
  OpenShard(std::unique_ptr<ShardArrays> arrays, const ShardLayout& layout)
      : arrays_(std::move(arrays)), layout_(layout) {}
  ~OpenShard() { delete tables_.load(); }
  OpenShard(const OpenShard&) = delete;
  OpenShard& operator=(const OpenShard&) = delete;

  const ShardLayout& layout() const { return layout_; }
  const ShardArrays& arrays() const { return *arrays_; }
  // Row i, checked to lie inside the arrays. Thread-safe.
  SampleFault row(uint64_t i, SampleRow& out) const;

 private:
  struct Tables {
    std::vector<uint64_t> offset;
    std::vector<uint32_t> crc32c, label_offset;
    std::vector<uint16_t> width, height;
  };
  void load_tables() const;
  SampleFault read_row(uint64_t i, SampleRow& out) const;

  std::unique_ptr<ShardArrays> arrays_;
  const ShardLayout& layout_;
  mutable std::atomic<uint64_t> rows_asked_{0};
  mutable std::atomic<const Tables*> tables_{nullptr};  // set once, owned
};

class OpenShards {
 public:
  explicit OpenShards(size_t limit) : limit_(limit) {}

  // The shard, opened by `open` when it is not open. `open` runs outside the lock (a slow disk
  // holds up nobody else) and may give null, which is passed on and not kept.
  using Open = std::function<std::shared_ptr<const OpenShard>()>;
  std::shared_ptr<const OpenShard> get(uint64_t shard, const Open& open);

 private:
  struct Entry {
    uint64_t shard;
    std::shared_ptr<const OpenShard> open;
  };

  std::shared_ptr<const OpenShard> find(uint64_t shard);  // under the lock

  const size_t limit_;
  std::mutex mutex_;
  std::list<Entry> entries_;  // most recent first
  std::unordered_map<uint64_t, std::list<Entry>::iterator> places_;
};

}  // namespace nf::data

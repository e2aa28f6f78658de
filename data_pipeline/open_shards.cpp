// See open_shards.h.
#include "data_pipeline/open_shards.h"

namespace nf::data {
namespace {

// Reading the arrays whole costs as much as the rows of a few dozen samples: worth it where more
// of the shard's samples follow, a waste where each read goes to another of thousands of shards.
constexpr uint64_t kRowsBeforeTables = 32;
constexpr uint64_t kMaxTableSamples = 32'768;  // 640 KiB a shard
constexpr uint64_t kMaxLabels =
    1 << 20;  // of one sample; a damaged array must not make us allocate gigabytes

}  // namespace

void OpenShard::load_tables() const {
  const uint64_t n = layout_.samples;
  auto tables = std::make_unique<Tables>();
  SampleFault fault;
  const auto get = [&](ShardArray array, auto& values, uint64_t count) {
    values.resize(count);
    if (fault.ok()) fault = arrays_->read(array, 0, count, values.data());
  };
  get(ShardArray::kOffset, tables->offset, n + 1);
  get(ShardArray::kLabelOffset, tables->label_offset, n + 1);
  get(ShardArray::kCrc32c, tables->crc32c, n);
  get(ShardArray::kWidth, tables->width, n);
  get(ShardArray::kHeight, tables->height, n);
  // After a failure rows go on being read one by one, each with its own fault.
  if (fault.ok()) tables_.store(tables.release(), std::memory_order_release);
}

SampleFault OpenShard::read_row(uint64_t i, SampleRow& out) const {
  SampleFault fault;
  const auto get = [&](ShardArray array, uint64_t count, void* to) {
    if (fault.ok()) fault = arrays_->read(array, i, count, to);
  };
  get(ShardArray::kOffset, 2, out.offset);
  get(ShardArray::kLabelOffset, 2, out.label_offset);
  get(ShardArray::kCrc32c, 1, &out.crc32c);
  get(ShardArray::kWidth, 1, &out.width);
  get(ShardArray::kHeight, 1, &out.height);
  return fault;
}

SampleFault OpenShard::row(uint64_t i, SampleRow& out) const {
  const Tables* tables = tables_.load(std::memory_order_acquire);
  if (tables == nullptr && layout_.samples <= kMaxTableSamples &&
      rows_asked_.fetch_add(1, std::memory_order_relaxed) == kRowsBeforeTables) {
    load_tables();
    tables = tables_.load(std::memory_order_acquire);
  }
  if (tables != nullptr) {
    out = {{tables->offset[i], tables->offset[i + 1]},
           {tables->label_offset[i], tables->label_offset[i + 1]},
           tables->crc32c[i],
           tables->width[i],
           tables->height[i]};
  } else if (SampleFault fault = read_row(i, out); !fault.ok()) {
    return fault;
  }
  if (out.offset[0] > out.offset[1] || out.offset[1] > layout_.bytes)
    return {"damaged offset array"};
  if (out.label_offset[0] > out.label_offset[1] || out.label_offset[1] > layout_.labels ||
      out.label_offset[1] - out.label_offset[0] > kMaxLabels) {
    return {"damaged label offset array"};
  }
  return {};
}

std::shared_ptr<const OpenShard> OpenShards::find(uint64_t shard) {
  const auto place = places_.find(shard);
  if (place == places_.end()) return nullptr;
  if (place->second->open->arrays().known_doubtful()) {  // its map shows another file by now
    entries_.erase(place->second);
    places_.erase(place);
    return nullptr;
  }
  entries_.splice(entries_.begin(), entries_, place->second);
  return entries_.front().open;
}

std::shared_ptr<const OpenShard> OpenShards::get(uint64_t shard, const Open& open) {
  {
    const std::lock_guard lock(mutex_);
    if (auto found = find(shard)) return found;
  }
  auto opened = open();
  if (!opened) return nullptr;
  std::shared_ptr<const OpenShard> closed;  // outside the lock
  const std::lock_guard lock(mutex_);
  if (auto found = find(shard)) return found;  // another thread was faster
  if (entries_.size() >= limit_) {
    closed = std::move(entries_.back().open);
    places_.erase(entries_.back().shard);
    entries_.pop_back();
  }
  entries_.push_front({shard, opened});
  places_[shard] = entries_.begin();
  return opened;
}

}  // namespace nf::data

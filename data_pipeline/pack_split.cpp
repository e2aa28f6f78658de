// See pack_split.h.
#include "data_pipeline/pack_split.h"

#include <algorithm>
#include <atomic>
#include <optional>

#include "core/atomic_file.h"
#include "core/check.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/jsonl.h"
#include "data_pipeline/parallel_for.h"
#include "data_pipeline/shard_format.h"
#include "data_pipeline/shard_writer.h"

namespace nf::data {
namespace fs = std::filesystem;
namespace {

// The receipt of a finished shard, or nothing when the shard has none or is not what it says.
std::optional<ShardEntry> finished_shard(const fs::path& receipt, const fs::path& shard,
                                         uint64_t samples) {
  if (!fs::exists(receipt) || !fs::exists(shard)) return std::nullopt;
  const Json json = Json::parse(read_file(receipt), nullptr, false);
  if (!json.is_object()) return std::nullopt;
  ShardEntry entry{shard.filename().string(), samples, json.value("bytes", uint64_t{0}),
                   json.value("sha256", "")};
  if (fs::file_size(shard) != entry.bytes || sha256_file(shard) != entry.sha256)
    return std::nullopt;
  return entry;
}

// One shard of a split: members [begin, end) of it.
class ShardJob {
 public:
  ShardJob(const SplitWriter& writer, const std::vector<uint64_t>& members, uint64_t begin,
           uint64_t end)
      : writer_(writer), members_(members), begin_(begin), end_(end) {}

  ShardEntry run(const std::string& split, const std::string& fingerprint, uint64_t shard,
                 std::atomic<uint64_t>& done) {
    const std::string name = shard_file_name(split, shard);
    const fs::path file = writer_.dataset / name, receipt = writer_.work / (name + ".json");
    if (auto entry = finished_shard(receipt, file, end_ - begin_)) {
      done += end_ - begin_;
      return *entry;
    }
    const fs::path temporary = writer_.work / (name + ".tmp");
    const std::string sha = write_shard(temporary, make_table(split, fingerprint), [&](uint64_t i) {
      ++done;
      return read(members_[begin_ + i]);
    });
    ShardEntry entry{name, end_ - begin_, fs::file_size(temporary), sha};
    rename_durable(temporary, file);
    write_file_atomic(receipt, Json{{"bytes", entry.bytes}, {"sha256", entry.sha256}}.dump());
    return entry;
  }

 private:
  ShardTable make_table(const std::string& split, const std::string& fingerprint) const {
    ShardTable table;
    table.split = split;
    table.fingerprint = fingerprint;
    table.first_index = begin_;
    for (uint64_t id = begin_; id < end_; ++id) {
      const ScanRecord& record = writer_.scan.records[members_[id]];
      const auto labels = writer_.source.labels(members_[id]);
      table.add(sample_crc32c(id, labels, record.bytes_crc, record.bytes), record.bytes, labels,
                record.width, record.height);
    }
    return table;
  }

  std::span<const uint8_t> read(uint64_t file) {
    const ScanRecord& record = writer_.scan.records[file];
    SampleFault fault = writer_.source.read(file, bytes_);
    if (fault.ok()) fault = writer_.preparer.prepare_again(bytes_);
    if (fault.ok() && (bytes_.size() != record.bytes ||
                       crc32c(std::as_bytes(std::span(bytes_))) != record.bytes_crc)) {
      fault = {"its content changed"};
    }
    if (!fault.ok()) {
      throw Error(ExitCode::kData, writer_.source.name(file),
                  "file changed while it was packed: " + fault.reason,
                  "leave the input alone while packing, then run nf-pack again with --overwrite");
    }
    return bytes_;
  }

  const SplitWriter& writer_;
  const std::vector<uint64_t>& members_;
  uint64_t begin_, end_;
  std::vector<uint8_t> bytes_;
};

}  // namespace

Assignment assign_splits(const std::vector<ScanRecord>& records, uint64_t holdout) {
  std::vector<uint64_t> order;
  for (uint64_t i = 0; i < records.size(); ++i) {
    if (records[i].accepted) order.push_back(i);
  }
  std::vector<bool> held_out(records.size(), false);
  if (holdout > 0) {
    std::vector<uint64_t> by_hash = order;
    std::stable_sort(by_hash.begin(), by_hash.end(), [&](uint64_t a, uint64_t b) {
      return records[a].content_hash < records[b].content_hash;
    });
    uint64_t left = holdout;
    for (size_t begin = 0, end = 0; begin < by_hash.size() && left > 0; begin = end) {
      while (end < by_hash.size() &&
             records[by_hash[end]].content_hash == records[by_hash[begin]].content_hash)
        ++end;
      if (end - begin > left) continue;
      left -= end - begin;
      for (size_t k = begin; k < end; ++k) held_out[by_hash[k]] = true;
    }
  }
  Assignment assignment;
  for (const uint64_t i : order) (held_out[i] ? assignment.held_out : assignment.main).push_back(i);
  return assignment;
}

SplitEntry SplitWriter::write(const std::string& split, const std::vector<uint64_t>& members,
                              const CountProgress& progress) const {
  NF_CHECK(!members.empty());
  SplitEntry entry;
  entry.name = split;
  entry.samples = members.size();
  entry.shard_samples = shard_samples;
  SplitFingerprint fingerprint(source.class_names());
  for (uint64_t id = 0; id < members.size(); ++id) {
    const ScanRecord& record = scan.records[members[id]];
    const auto labels = source.labels(members[id]);
    fingerprint.add(sample_crc32c(id, labels, record.bytes_crc, record.bytes), record.bytes,
                    labels);
    entry.bytes += record.bytes;
  }
  entry.fingerprint = fingerprint.hex();
  const uint64_t shards = (members.size() + shard_samples - 1) / shard_samples;
  entry.shards.resize(shards);
  std::atomic<uint64_t> done{0};
  parallel_for(
      shards, workers,
      [&](uint64_t shard) {
        const uint64_t begin = shard * shard_samples,
                       end = std::min<uint64_t>(members.size(), begin + shard_samples);
        entry.shards[shard] =
            ShardJob(*this, members, begin, end).run(split, entry.fingerprint, shard, done);
      },
      [&] { progress(done, members.size()); });
  return entry;
}

}  // namespace nf::data

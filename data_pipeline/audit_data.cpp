// See audit_data.h.
#include "data_pipeline/audit_data.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <tuple>

#include "core/error.h"
#include "data_pipeline/dataset_index.h"
#include "data_pipeline/decode.h"
#include "data_pipeline/parallel_for.h"
#include "data_pipeline/shard_arrays.h"
#include "data_pipeline/shard_dataset.h"

namespace nf::data {
namespace {

constexpr uint64_t kSamplesPerTask = 64;

// In a large data set a shard is first opened here, and a bad one is the fault of each of its
// samples.
SampleFault read_or_fault(const ShardDataset& set, uint64_t i, SampleData& data) {
  try {
    return set.read(i, data);
  } catch (const Error& e) {
    if (e.code() != ExitCode::kData) throw;
    return {e.where() + ": " + e.what()};
  }
}

void audit_split(const std::filesystem::path& dataset, const std::string& split, bool decode,
                 int workers, DataReport& report, std::atomic<uint64_t>& done,
                 const std::function<void()>& watch) {
  const ShardDataset set(dataset, split);
  std::mutex mutex;
  const uint64_t tasks = (set.size() + kSamplesPerTask - 1) / kSamplesPerTask;
  parallel_for(
      tasks, workers,
      [&](uint64_t task) {
        SampleData data;
        Image image;
        uint64_t bytes = 0;
        std::vector<DamagedSample> damaged;
        const uint64_t end = std::min((task + 1) * kSamplesPerTask, set.size());
        for (uint64_t i = task * kSamplesPerTask; i < end; ++i) {
          SampleFault fault = read_or_fault(set, i, data);
          if (fault.ok()) bytes += data.bytes.size();
          if (fault.ok() && decode) fault = decode_image(data.bytes, image);
          if (!fault.ok()) damaged.push_back({split, i, fault.reason});
        }
        done += end - task * kSamplesPerTask;
        const std::lock_guard lock(mutex);
        report.bytes += bytes;
        report.damaged.insert(report.damaged.end(), damaged.begin(), damaged.end());
      },
      watch);
  report.samples += set.size();
}

// The fingerprint and the sum of bytes that dataset.json promises for a split, computed from the
// small arrays of its shards. They tie the class names and the order of shards to the content.
void audit_fingerprint(const std::filesystem::path& dataset, const DatasetIndex& index,
                       const SplitEntry& split, DataReport& report) {
  SplitFingerprint fingerprint(index.class_names);
  uint64_t bytes = 0;
  std::vector<uint32_t> crc, label_offset;
  std::vector<uint64_t> offset;
  std::vector<int32_t> labels;
  for (const ShardEntry& shard : split.shards) {
    const ShardLayout layout = read_shard_layout(dataset / shard.file);
    SampleFault fault;
    const auto arrays = open_shard_arrays(dataset / shard.file, layout, {}, fault);
    const auto get = [&](ShardArray array, auto& values, uint64_t count) {
      values.resize(count);
      if (fault.ok()) fault = arrays->read(array, 0, count, values.data());
    };
    get(ShardArray::kCrc32c, crc, layout.samples);
    get(ShardArray::kOffset, offset, layout.samples + 1);
    get(ShardArray::kLabelOffset, label_offset, layout.samples + 1);
    get(ShardArray::kLabel, labels, layout.labels);
    if (!fault.ok()) return;  // the samples have said so already
    for (uint64_t i = 0; i < layout.samples; ++i) {
      if (offset[i] > offset[i + 1] || label_offset[i] > label_offset[i + 1] ||
          label_offset[i + 1] > labels.size())
        return;  // as above
      fingerprint.add(crc[i], offset[i + 1] - offset[i],
                      std::span<const int32_t>(labels).subspan(
                          label_offset[i], label_offset[i + 1] - label_offset[i]));
      bytes += offset[i + 1] - offset[i];
    }
  }
  if (fingerprint.hex() != split.fingerprint) {
    report.problems.push_back("split " + split.name +
                              ": its fingerprint differs from that of its class names and samples");
  }
  if (bytes != split.bytes) {
    report.problems.push_back("split " + split.name + ": " + std::to_string(bytes) +
                              " bytes of images, " + kDatasetFile + " says " +
                              std::to_string(split.bytes));
  }
}

}  // namespace

DataReport audit_data(const std::filesystem::path& dataset, bool decode, int workers,
                      const AuditProgress& progress) {
  const DatasetIndex index = read_dataset_index(dataset);
  DataReport report;
  report.decoded = decode;
  report.problems = verify_shards(dataset);
  uint64_t total = 0;
  for (const SplitEntry& split : index.splits) total += split.samples;
  std::atomic<uint64_t> done = 0;
  for (const SplitEntry& split : index.splits) {
    ++report.splits;
    report.shards += split.shards.size();
    try {
      audit_split(dataset, split.name, decode, workers, report, done,
                  [&] { progress(done, total); });
      audit_fingerprint(dataset, index, split, report);
    } catch (const Error& e) {
      if (e.code() != ExitCode::kData) throw;
      report.problems.push_back(e.where() + ": " + e.what());
    }
  }
  progress(done, total);
  std::sort(report.damaged.begin(), report.damaged.end(), [](const auto& a, const auto& b) {
    return std::tie(a.split, a.sample) < std::tie(b.split, b.sample);
  });
  return report;
}

Json to_json(const DataReport& report) {
  Json damaged = Json::array();
  for (const DamagedSample& d : report.damaged) {
    damaged.push_back({{"split", d.split}, {"sample", d.sample}, {"reason", d.reason}});
  }
  return {{"verdict", report.passed() ? "pass" : "fail"},
          {"splits", report.splits},
          {"shards", report.shards},
          {"samples", report.samples},
          {"bytes", report.bytes},
          {"decoded", report.decoded},
          {"problems", report.problems},
          {"damaged", damaged}};
}

}  // namespace nf::data

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
#include "data_pipeline/shard_dataset.h"

namespace nf::data {
namespace {

constexpr uint64_t kSamplesPerTask = 64;

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
          SampleFault fault = set.read(i, data);
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

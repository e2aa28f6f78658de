// See pack_scan.h.
#include "data_pipeline/pack_scan.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>

#include "core/atomic_file.h"
#include "core/hash.h"
#include "core/jsonl.h"
#include "data_pipeline/parallel_for.h"

namespace nf::data {
namespace fs = std::filesystem;
namespace {

// Blocks of at most 1024 files, at least 64 blocks for small inputs: a function of the input alone,
// not of the workers.
uint64_t block_size(uint64_t files) { return std::clamp<uint64_t>(files / 64, 1, 1024); }

struct Verdict {
  ScanRecord record;
  std::string reason;
};

Verdict judge(const ImageSource& source, ImagePreparer& preparer, uint64_t i,
              std::vector<uint8_t>& bytes) {
  Verdict verdict;
  int width = 0, height = 0;
  SampleFault fault = source.read(i, bytes);
  if (fault.ok()) {
    verdict.record.content_hash = xxh3_64(std::as_bytes(std::span(bytes)));
    fault = preparer.prepare(bytes, width, height);
  }
  verdict.reason = fault.reason;
  verdict.record.accepted = fault.ok();
  if (fault.ok()) {
    verdict.record.bytes = bytes.size();
    verdict.record.bytes_crc = crc32c(std::as_bytes(std::span(bytes)));
    verdict.record.width = static_cast<uint16_t>(width);
    verdict.record.height = static_cast<uint16_t>(height);
  }
  return verdict;
}

Json to_json(const Verdict& v) {
  if (!v.record.accepted) return v.reason;
  const ScanRecord& r = v.record;
  return {r.content_hash, r.bytes, r.bytes_crc, r.width, r.height};
}

Verdict parse(const Json& json) {
  Verdict v;
  if (json.is_string()) {
    v.reason = json.get<std::string>();
  } else {
    v.record = {json.at(0).get<uint64_t>(), json.at(1).get<uint64_t>(), json.at(2).get<uint32_t>(),
                json.at(3).get<uint16_t>(), json.at(4).get<uint16_t>(), true};
  }
  return v;
}

// Nothing when the block was not finished or is not whole.
std::optional<std::vector<Verdict>> load_block(const fs::path& file, uint64_t size) {
  if (!fs::exists(file)) return std::nullopt;
  const Json json = Json::parse(read_file(file), nullptr, false);
  if (!json.is_array() || json.size() != size) return std::nullopt;
  std::vector<Verdict> verdicts;
  for (const auto& entry : json) {
    if (!entry.is_string() && !(entry.is_array() && entry.size() == 5)) return std::nullopt;
    verdicts.push_back(parse(entry));
  }
  return verdicts;
}

void save_block(const fs::path& file, const std::vector<Verdict>& verdicts) {
  Json json = Json::array();
  for (const auto& verdict : verdicts) json.push_back(to_json(verdict));
  write_file_atomic(file, json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace

ScanResult scan_images(const ImageSource& source, ImagePreparer& preparer, const fs::path& folder,
                       int workers, const CountProgress& progress) {
  const uint64_t total = source.size(), block = block_size(total);
  ScanResult result;
  result.records.resize(total);
  std::mutex reasons_mutex;
  std::atomic<uint64_t> done{0};
  const auto scan_block = [&](uint64_t b) {
    const uint64_t begin = b * block, end = std::min(total, begin + block);
    const fs::path file = folder / ("scan-" + std::to_string(b) + ".json");
    auto verdicts = load_block(file, end - begin);
    if (!verdicts) {
      verdicts.emplace();
      std::vector<uint8_t> bytes;
      for (uint64_t i = begin; i < end; ++i) {
        verdicts->push_back(judge(source, preparer, i, bytes));
        ++done;
      }
      save_block(file, *verdicts);
    } else {
      done += end - begin;
    }
    for (uint64_t i = begin; i < end; ++i) {
      Verdict& verdict = (*verdicts)[i - begin];
      result.records[i] = verdict.record;
      if (verdict.record.accepted) continue;
      const std::lock_guard lock(reasons_mutex);
      result.reasons[i] = std::move(verdict.reason);
    }
  };
  parallel_for((total + block - 1) / block, workers, scan_block, [&] { progress(done, total); });
  return result;
}

}  // namespace nf::data

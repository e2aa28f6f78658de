// Reads a packed data set from end to end: are the files those that dataset.json lists, is every
// sample what was packed, and, if asked, does every image still decode.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/jsonl.h"

namespace nf::data {

struct DamagedSample {
  std::string split;
  uint64_t sample = 0;  // index in the split
  std::string reason;
};

struct DataReport {
  uint64_t splits = 0, shards = 0, samples = 0, bytes = 0;  // bytes of image files read
  bool decoded = false;
  std::vector<std::string> problems;   // of files: missing, truncated, another SHA-256
  std::vector<DamagedSample> damaged;  // by split and index

  bool passed() const { return problems.empty() && damaged.empty(); }
};

// Called a few times a second and at the end, by the calling thread.
using AuditProgress = std::function<void(uint64_t samples_done, uint64_t samples)>;

// Throws Error(kData) when there is no readable dataset.json; everything else is reported.
// `workers` threads.
DataReport audit_data(const std::filesystem::path& dataset, bool decode, int workers,
                      const AuditProgress& progress);

Json to_json(const DataReport& report);

}  // namespace nf::data

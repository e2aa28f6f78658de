// First pass of a pack: reads and decodes every input file and remembers, in about 40 bytes each,
// whether it is accepted and what its shard entry will be. Results are kept on disk in blocks, so a
// killed scan goes on where it stopped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data_pipeline/image_preparer.h"
#include "data_pipeline/image_source.h"

namespace nf::data {

struct ScanRecord {
  uint64_t content_hash = 0;  // XXH3 of the input file: what --holdout goes by
  uint64_t bytes = 0;         // as stored
  uint32_t bytes_crc = 0;     // CRC32C of the stored bytes alone
  uint16_t width = 0, height = 0;
  bool accepted = false;
};

struct ScanResult {
  std::vector<ScanRecord> records;          // one for each file of the source, in its order
  std::map<uint64_t, std::string> reasons;  // of the files that were refused
};

// Reports (files done, files in all).
using CountProgress = std::function<void(uint64_t done, uint64_t total)>;

// `folder` holds the blocks; the caller has made sure that it belongs to this source and these
// options.
ScanResult scan_images(const ImageSource& source, ImagePreparer& preparer,
                       const std::filesystem::path& folder, int workers,
                       const CountProgress& progress);

}  // namespace nf::data

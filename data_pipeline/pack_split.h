// Second pass of a pack: writes the shards of one split from the records of the scan. Each shard is
// written under a temporary name and renamed, then a receipt with its SHA-256 is left beside; a
// rerun keeps shards that match theirs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data_pipeline/dataset_index.h"
#include "data_pipeline/image_source.h"
#include "data_pipeline/pack_scan.h"

namespace nf::data {

// Which of the accepted files go to the main split and which are held out, in order of their names.
struct Assignment {
  std::vector<uint64_t> main, held_out;
};

// Holds out `holdout` files: groups of equal content in ascending order of (content hash), each
// taken whole if it still fits. Fewer only when the remaining groups are all too large.
Assignment assign_splits(const std::vector<ScanRecord>& records, uint64_t holdout);

struct SplitWriter {
  const ImageSource& source;
  const ScanResult& scan;
  ImagePreparer& preparer;
  std::filesystem::path dataset, work;  // the data set's folder, the pack's temporary folder in it
  uint64_t shard_samples;
  int workers;

  // Writes all shards of `split`, which holds the files `members` (not empty). Throws Error(kData)
  // when a file is not what the scan saw.
  SplitEntry write(const std::string& split, const std::vector<uint64_t>& members,
                   const CountProgress& progress) const;
};

}  // namespace nf::data

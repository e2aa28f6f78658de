// What nf-pack does: images in, data set out. The result is a function of the input files' names
// and bytes and of the options, for any number of workers and any history of kills;
// docs/data_format.md has the rules.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data_pipeline/dataset_index.h"

namespace nf::data {

inline constexpr const char* kHoldoutSplit = "holdout";

struct PackOptions {
  std::filesystem::path input, output;
  std::string split = "train";
  std::string subdir;    // SourceOptions::subdir
  uint64_t holdout = 0;  // samples moved to the split "holdout"
  int workers = 0;       // threads; 0: one for each processor
  int resize_short = 0;  // pixels; 0 keeps the images' sizes
  int quality = 90;      // JPEG quality after resizing
  bool transcode =
      true;  // JPEGs without loss, for decoding of parts; false: keeps the files' bytes
  bool headers_only = false;  // checks files without decoding them; not with transcode
  uint64_t shard_samples = 8192;
  bool multi_label = false;
  bool overwrite = false;  // replaces the split (and the holdout) if it is there
};

struct PackProgress {
  const char* phase;  // "checking", "writing"
  uint64_t done, total;
};

struct PackResult {
  std::vector<SplitEntry> splits;  // the split, then the holdout if any
  uint64_t rejected = 0;
  bool already_complete = false;
};

// Throws Error: kUsage for options that do not fit, kData for the input or an unfinished or
// different pack in the output folder, kOther when the output cannot be written. `progress` is
// called from the calling thread.
PackResult pack(const PackOptions& options,
                const std::function<void(const PackProgress&)>& progress = {});

}  // namespace nf::data

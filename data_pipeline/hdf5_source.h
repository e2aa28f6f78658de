// Images and labels in an HDF5 file that others made, as an input of nf-pack (accepted layouts:
// docs/data_format.md). Chunked, compressed and variable-length arrays are read through the HDF5
// library, one sample at a time; raw pixels become PNG files, which lose nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data_pipeline/shard_dataset.h"

namespace nf::data {

// By the signature at the places the format allows.
bool is_hdf5(const std::filesystem::path& file);

class Hdf5Source {
 public:
  // Throws Error(kData): unreadable, no images or labels in an accepted layout, lengths that do not
  // fit.
  explicit Hdf5Source(const std::filesystem::path& file);
  ~Hdf5Source();
  Hdf5Source(const Hdf5Source&) = delete;
  Hdf5Source& operator=(const Hdf5Source&) = delete;

  uint64_t size() const;
  // Labels of sample i as class indices; or one class name for each sample where the file holds
  // text (the other is then empty).
  const std::vector<std::vector<int32_t>>& label_indices() const;
  const std::vector<std::string>& label_names() const;
  // An encoded image file. Thread-safe.
  SampleFault read(uint64_t i, std::vector<uint8_t>& out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nf::data

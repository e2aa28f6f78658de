// The input of nf-pack: a folder with a folder per class, a tar file of the same, a TSV of paths
// and labels, or an HDF5 file of images and labels, listed once and sorted by name, so that the
// order of a data set depends on nothing but its files' names.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data_pipeline/shard_dataset.h"

namespace nf::data {

class Hdf5Source;

struct RejectedFile {
  std::string name, reason;
};

struct SourceOptions {
  std::filesystem::path input;
  std::string
      split;  // a first-level folder of this name that holds only folders is taken as the root
  std::string subdir;  // forces the root; "." is the input itself
  bool multi_label = false;
};

class ImageSource {
 public:
  // `known_classes`: of the data set that is added to; empty for a new one. Throws Error(kData):
  // input missing, empty or damaged, bad lines (all of them), labels out of range, classes that the
  // data set does not have.
  ImageSource(const SourceOptions& options, const std::vector<std::string>& known_classes);
  ~ImageSource();
  ImageSource(const ImageSource&) = delete;
  ImageSource& operator=(const ImageSource&) = delete;

  uint64_t size() const { return files_.size(); }
  const std::string& name(uint64_t i) const { return files_[i].name; }
  uint64_t bytes(uint64_t i) const { return files_[i].bytes; }
  std::span<const int32_t> labels(uint64_t i) const;
  const std::vector<std::string>& class_names() const { return class_names_; }
  // Files that are no sample whatever they hold: outside a class folder, links in a tar, missing.
  const std::vector<RejectedFile>& rejected() const { return rejected_; }

  // The file's bytes. Thread-safe. Unreadable files are faults.
  SampleFault read(uint64_t i, std::vector<uint8_t>& out) const;

 private:
  struct File {
    std::string name;  // relative to the root
    uint64_t bytes = 0;
    uint64_t at = 0;  // in the tar file; in an HDF5 file: which sample
  };

  void list_folder();
  void list_tar();
  void select_root(const SourceOptions& options);
  void take_classes(const std::string& flat_class, const std::vector<std::string>& known);
  void list_hdf5(const SourceOptions& options, const std::vector<std::string>& known);
  void list_manifest(const SourceOptions& options, const std::vector<std::string>& known);

  std::filesystem::path input_;
  std::filesystem::path folder_;  // names are relative to it; unused for a tar
  int tar_ = -1;
  std::unique_ptr<Hdf5Source> hdf5_;
  std::vector<File> files_;
  std::vector<uint32_t> label_offset_ = {0};
  std::vector<int32_t> label_;
  std::vector<std::string> class_names_;
  std::vector<RejectedFile> rejected_;
};

}  // namespace nf::data

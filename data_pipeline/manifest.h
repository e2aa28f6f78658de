// The TSV input of nf-pack: one line a file, "path<TAB>label[,label...]".
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace nf::data {

struct ManifestRow {
  std::string path;             // as written
  std::vector<int32_t> labels;  // class indices, in the order written, no repeats
};

struct Manifest {
  std::vector<ManifestRow> rows;  // sorted by path
  std::vector<std::string> class_names;
};

// Labels that are all integers are class indices, and the classes of a new data set are named "0"
// to the largest; otherwise labels are class names and the classes are the sorted names. `known`
// (not empty): the classes of the data set that is added to; indices must lie in it and names must
// be among them. Throws Error(kData) that lists every bad line.
Manifest read_manifest(const std::filesystem::path& file, bool multi_label,
                       const std::vector<std::string>& known);

// The index of each name in `known`; throws Error(kData) naming those that are missing.
std::vector<int32_t> match_classes(const std::string& where, const std::vector<std::string>& names,
                                   const std::vector<std::string>& known);

}  // namespace nf::data

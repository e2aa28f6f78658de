// The manifest of a checkpoint directory: which files belong to it, how long they are and their
// XXH3. It is written last, so its presence says that everything before it reached the disk. The
// text is canonical: a manifest that is not exactly what would be printed for its content is
// damaged, so every flipped bit is found.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "trainer/checkpoint/tensor_file.h"

namespace nf::train {

inline constexpr const char* kManifestName = "manifest.json";

struct ManifestEntry {
  std::string name;
  FileDigest digest;
};

struct Manifest {
  uint64_t step = 0;
  std::vector<ManifestEntry> files;
  const ManifestEntry* find(std::string_view name) const;  // null when there is none
};

std::string print_manifest(const Manifest& manifest);

// Throws Error(kWeights) when the file is missing or damaged.
Manifest read_manifest(const std::filesystem::path& directory);

}  // namespace nf::train

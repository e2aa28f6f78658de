// Odd and damaged image files and what nf-pack must make of each: accepted, or refused with a
// reason.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace nf::test {

struct OddFile {
  std::string name;
  std::string reason;  // must stand in rejected.tsv; empty: accepted
};

// Draws a set into the folder.
std::vector<OddFile> draw_odd_files(const std::filesystem::path& folder);

// The verdicts on the collected set (145 files). Decoders disagree about it; ours are the strict
// ones: a JPEG is accepted exactly when libjpeg-turbo reads it to its end without a warning, a PNG
// when all its checksums hold and it is complete.
const std::vector<OddFile>& collected_odd_files();

}  // namespace nf::test

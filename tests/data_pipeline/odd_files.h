// Odd and damaged image files and what nf-pack must make of each: accepted, or refused with a
// reason.
#pragma once

#include <filesystem>
#include <map>
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

// What `--check headers` says differently, of both sets: by name, the reason or "" for files that
// are refused in full and accepted here, since what is wrong with them is in the entropy-coded
// data.
const std::map<std::string, std::string>& headers_only_verdicts();

}  // namespace nf::test

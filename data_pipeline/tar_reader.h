// Index of an uncompressed tar file: where each member's bytes lie, so that members can be read by
// pread in any order. Understands ustar (with prefix), GNU long names and pax path and size
// records; large sizes in base 256.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace nf::data {

struct TarMember {
  std::string name;  // without leading "./" and "/"
  uint64_t at = 0;   // of its bytes in the tar file
  uint64_t bytes = 0;
  bool regular = true;  // false: link or device, which has no bytes of its own
};

// True for a file that begins with a tar header.
bool is_tar(const std::filesystem::path& file);

// All members but folders, in file order. Throws Error(kData) for truncated, damaged or unsupported
// archives, naming the offset.
std::vector<TarMember> read_tar_index(const std::filesystem::path& file);

}  // namespace nf::data

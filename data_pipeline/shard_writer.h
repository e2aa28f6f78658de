// Writes one shard file. Equal input gives equal bytes: no times, fixed HDF5 versions, fixed order.
// The small arrays go through the HDF5 library, the image bytes through pwrite at the place it
// reserved, so memory does not grow with the shard.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace nf::data {

// Everything but the image bytes. Sample i has labels [label_offset[i], label_offset[i + 1]) and
// bytes of length offset[i + 1] - offset[i].
struct ShardTable {
  std::string split, fingerprint;
  uint64_t first_index = 0;
  std::vector<uint64_t> offset = {0};        // [n + 1]
  std::vector<uint32_t> crc32c;              // [n]
  std::vector<uint32_t> label_offset = {0};  // [n + 1]
  std::vector<int32_t> label;
  std::vector<uint16_t> width, height;  // [n], upright

  uint64_t samples() const { return crc32c.size(); }
  void add(uint32_t crc, uint64_t bytes, std::span<const int32_t> labels, uint16_t w, uint16_t h);
};

// Gives the bytes of sample i (0-based in the shard), called once for each in order.
using SampleBytes = std::function<std::span<const uint8_t>(uint64_t i)>;

// Creates `file` (overwrites), complete and fsynced, and gives its SHA-256. Throws Error (exit 1)
// when the disk refuses; what `bytes` throws passes through. A partial file may stay: callers write
// to a temporary name.
std::string write_shard(const std::filesystem::path& file, const ShardTable& table,
                        const SampleBytes& bytes);

}  // namespace nf::data

// The shard file (docs/data_format.md): names and versions, the CRC32C of a sample, the fingerprint
// of a split, and the layout of an HDF5 file read through the HDF5 library. Sample bytes are never
// read here: pread does that.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "core/hash.h"

namespace nf::data {

inline constexpr const char* kShardFormat = "nf-shard";
inline constexpr int kShardVersion = 1;
inline constexpr uint64_t kShardAlignment = 4096;  // of arrays of at least this many bytes

// "train-00000.h5"
std::string shard_file_name(const std::string& split, uint64_t shard);

// CRC32C over: id (index in the split) u64 LE, number of labels u32 LE, labels i32 LE each, bytes.
uint32_t sample_crc32c(uint64_t id, std::span<const int32_t> labels,
                       std::span<const uint8_t> bytes);
// The same from the CRC32C of the bytes alone, without the bytes.
uint32_t sample_crc32c(uint64_t id, std::span<const int32_t> labels, uint32_t bytes_crc,
                       uint64_t bytes_size);

// SHA-256 over what a split holds, in order: class names, then CRC32C, length and labels of each
// sample. Everything in it stands in dataset.json and in the small arrays of the shards, so it can
// be checked without reading image bytes.
class SplitFingerprint {
 public:
  explicit SplitFingerprint(const std::vector<std::string>& class_names);
  void add(uint32_t crc32c, uint64_t bytes, std::span<const int32_t> labels);
  std::string hex();  // call once

 private:
  Sha256 sha_;
};

// The arrays of a shard, by their names in the file.
enum class ShardArray { kData, kOffset, kCrc32c, kLabelOffset, kLabel, kWidth, kHeight };
inline constexpr std::array kShardArrays = {
    ShardArray::kData,  ShardArray::kOffset, ShardArray::kCrc32c, ShardArray::kLabelOffset,
    ShardArray::kLabel, ShardArray::kWidth,  ShardArray::kHeight};
const char* shard_array_name(ShardArray array);        // "/data"
uint64_t shard_array_element_bytes(ShardArray array);  // as nf-pack writes it

struct ShardArrayPlace {
  uint64_t at, element;  // in the file; bytes of one element
};

// Where the arrays of a shard lie in its file.
struct ShardLayout {
  uint64_t samples = 0, labels = 0, bytes = 0;  // lengths of /crc32c, /label, /data
  uint64_t data_at = 0, offset_at = 0, crc32c_at = 0, label_offset_at = 0, label_at = 0,
           width_at = 0, height_at = 0;
  // False: saved again by other software, with chunks, filters or other integer types. The places
  // above then mean nothing, the HDF5 library has to read the arrays.
  bool contiguous = true;
  std::string split, fingerprint;
  uint64_t first_index = 0;

  ShardArrayPlace place(ShardArray array) const;
};

// Throws Error(kData): not a shard, another version, arrays that do not fit together or lie outside
// the file.
ShardLayout read_shard_layout(const std::filesystem::path& file);

// Distributions build the HDF5 library without thread safety: every call to it happens under this
// lock.
std::mutex& hdf5_mutex();

}  // namespace nf::data

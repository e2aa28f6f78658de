// The arrays of one open shard file. Shards as nf-pack writes them are contiguous: pread at the
// place HDF5 names, without the library's global lock. A shard that others saved again (h5repack:
// chunked, compressed, other integer types) is read through the library, one caller at a time:
// slower, the same values. The bytes of samples may be mapped besides.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "data_pipeline/shard_dataset.h"
#include "data_pipeline/shard_format.h"

namespace nf::data {

class ShardArrays {
 public:
  virtual ~ShardArrays() = default;
  ShardArrays() = default;
  ShardArrays(const ShardArrays&) = delete;
  ShardArrays& operator=(const ShardArrays&) = delete;

  // Elements [first, first + count) of an array, little-endian as in docs/data_format.md. The range
  // must lie in the array. Any number of threads may call at once.
  virtual SampleFault read(ShardArray array, uint64_t first, uint64_t count, void* to) const = 0;
  // Says that these bytes of /data will be read soon. Costs a system call, never waits for a disk.
  virtual void will_need(uint64_t first, uint64_t count) const = 0;

  // Where these bytes of /data are mapped; null if they are not (all of them).
  virtual const uint8_t* mapped(uint64_t, uint64_t) const { return nullptr; }
  // True when what mapped() gave may have changed since: a page was lost, or the file was written.
  // Once true, always true.
  virtual bool is_doubtful() const { return false; }
  // The same as far as it is known already, without a system call.
  virtual bool known_doubtful() const { return false; }
};

// Opens the file whose layout is `layout` (kept by reference). When it cannot be opened, `fault`
// says why and the result is null.
std::unique_ptr<ShardArrays> open_shard_arrays(const std::filesystem::path& file,
                                               const ShardLayout& layout, const ReadOptions& how,
                                               SampleFault& fault);

}  // namespace nf::data

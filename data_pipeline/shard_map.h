// A shard file mapped for reading. A page that cannot be read (the file became shorter, a disk or a
// network failed) raises SIGBUS where ordinary reads return an error; inside a ShardMap it becomes
// a page of zeros and a count, so that the process lives on and the reader can ask the file again.
//
// The handler is installed with the first map, once in a process. SIGBUS from anywhere else goes on
// to whatever was installed before: by default the process ends with it, as without us.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace nf::data {

class ShardMap {
 public:
  // Maps `bytes` bytes of an open file, which may be closed afterwards. Null where that is not
  // possible: nothing to map, no address space, or already kMaxMaps maps in this process.
  static std::unique_ptr<ShardMap> open(int fd, uint64_t bytes);
  ~ShardMap();
  ShardMap(const ShardMap&) = delete;
  ShardMap& operator=(const ShardMap&) = delete;

  const uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }
  // Pages that could not be read so far. Rises before the zeros can be seen: who reads bytes first
  // and finds 0 here afterwards has read the file's own.
  uint64_t lost_pages() const;

  static constexpr int kMaxMaps = 1024;
  static int open_maps();  // of the whole process

 private:
  ShardMap(const uint8_t* data, uint64_t size, int slot) : data_(data), size_(size), slot_(slot) {}

  const uint8_t* data_;
  uint64_t size_;
  int slot_;  // in the handler's table
};

}  // namespace nf::data

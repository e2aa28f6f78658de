// See shard_arrays.h.
#include "data_pipeline/shard_arrays.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>

#include "data_pipeline/hdf5_handle.h"
#include "data_pipeline/shard_map.h"

namespace nf::data {
namespace fs = std::filesystem;
namespace {

class ContiguousArrays : public ShardArrays {
 public:
  ContiguousArrays(int fd, const ShardLayout& layout) : fd_(fd), layout_(layout) {}
  ~ContiguousArrays() override { ::close(fd_); }

  SampleFault read(ShardArray array, uint64_t first, uint64_t count, void* to) const override {
    const ShardArrayPlace place = layout_.place(array);
    auto* p = static_cast<char*>(to);
    uint64_t at = place.at + first * place.element, left = count * place.element;
    while (left > 0) {
      const ssize_t n = ::pread(fd_, p, left, static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return {std::string("cannot read shard: ") + std::strerror(errno)};
      if (n == 0) return {"shard ends early"};
      p += n;
      at += static_cast<uint64_t>(n);
      left -= static_cast<uint64_t>(n);
    }
    return {};
  }

  void will_need(uint64_t first, uint64_t count) const override {
    ::posix_fadvise(fd_, static_cast<off_t>(layout_.place(ShardArray::kData).at + first),
                    static_cast<off_t>(count), POSIX_FADV_WILLNEED);
  }

 protected:
  int fd() const { return fd_; }

 private:
  int fd_;
  const ShardLayout& layout_;
};

// The same with /data mapped as soon as that pays. The small arrays are copied all the same: they
// are read once, whole.
class MappedArrays : public ContiguousArrays {
 public:
  MappedArrays(int fd, const ShardLayout& layout, uint64_t copies_before_map)
      : ContiguousArrays(fd, layout),
        data_at_(layout.data_at),
        copies_before_map_(copies_before_map) {}

  const uint8_t* mapped(uint64_t first, uint64_t count) const override {
    const ShardMap* map = map_.load(std::memory_order_acquire);
    if (map == nullptr) {
      if (asked_.fetch_add(1) != copies_before_map_) return nullptr;
      map = open_map();
    }
    if (map == nullptr || data_at_ > map->size() || first > map->size() - data_at_ ||
        count > map->size() - data_at_ - first)
      return nullptr;
    return map->data() + data_at_ + first;
  }

  // A file cut in the middle of a page loses no page: its size and the time of its last change
  // tell.
  bool is_doubtful() const override {
    if (map_.load() == nullptr) return false;
    if (known_doubtful()) return true;
    struct stat now {};
    const bool changed = ::fstat(fd(), &now) != 0 || now.st_size != mapped_.st_size ||
                         now.st_ctim.tv_sec != mapped_.st_ctim.tv_sec ||
                         now.st_ctim.tv_nsec != mapped_.st_ctim.tv_nsec;
    if (changed) changed_.store(true);
    return changed;
  }
  bool known_doubtful() const override {
    const ShardMap* map = map_.load(std::memory_order_acquire);
    return map != nullptr && (changed_.load() || map->lost_pages() > 0);
  }

 private:
  // Called once in the life of a shard.
  const ShardMap* open_map() const {
    if (::fstat(fd(), &mapped_) != 0 || mapped_.st_size <= 0) return nullptr;
    owned_ = ShardMap::open(fd(), static_cast<uint64_t>(mapped_.st_size));
    map_.store(owned_.get(), std::memory_order_release);
    return owned_.get();
  }

  const uint64_t data_at_, copies_before_map_;
  mutable std::atomic<uint64_t> asked_{0};
  mutable struct stat mapped_ {};  // the file when it was mapped; this and owned_ before map_
  mutable std::unique_ptr<ShardMap> owned_;
  mutable std::atomic<const ShardMap*> map_{nullptr};
  mutable std::atomic<bool> changed_{false};
};

// HDF5's own memory type for an array, whatever integers the file holds.
hid_t memory_type(ShardArray array) {
  switch (array) {
    case ShardArray::kData:
      return H5T_NATIVE_UINT8;
    case ShardArray::kOffset:
      return H5T_NATIVE_UINT64;
    case ShardArray::kLabel:
      return H5T_NATIVE_INT32;
    case ShardArray::kWidth:
    case ShardArray::kHeight:
      return H5T_NATIVE_UINT16;
    default:
      return H5T_NATIVE_UINT32;
  }
}

// Every call under hdf5_mutex(), construction and destruction included.
class LibraryArrays : public ShardArrays {
 public:
  explicit LibraryArrays(const fs::path& file) {
    const std::lock_guard lock(hdf5_mutex());
    hdf5_begin();
    file_.emplace(H5Fopen(file.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose,
                  "cannot open shard");
    for (const ShardArray array : kShardArrays) {
      sets_.try_emplace(array, H5Dopen2(*file_, shard_array_name(array), H5P_DEFAULT), H5Dclose,
                        "cannot open an array of the shard");
    }
  }
  ~LibraryArrays() override {
    const std::lock_guard lock(hdf5_mutex());
    sets_.clear();
    file_.reset();
  }

  SampleFault read(ShardArray array, uint64_t first, uint64_t count, void* to) const override {
    if (count == 0) return {};
    const std::lock_guard lock(hdf5_mutex());
    try {
      const Hdf5Handle& set = sets_.at(array);
      const Hdf5Handle space(H5Dget_space(set), H5Sclose, "no space");
      const hsize_t start = first, extent = count;
      hdf5_check(H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, nullptr, &extent, nullptr),
                 "select");
      const Hdf5Handle memory(H5Screate_simple(1, &extent, nullptr), H5Sclose, "no space");
      hdf5_check(H5Dread(set, memory_type(array), memory, space, H5P_DEFAULT, to), "read");
    } catch (const Hdf5Failure&) {
      return {std::string("HDF5 cannot read ") + shard_array_name(array)};
    }
    return {};
  }

  void will_need(uint64_t, uint64_t) const override {}

 private:
  std::optional<Hdf5Handle> file_;
  std::map<ShardArray, Hdf5Handle> sets_;
};

}  // namespace

std::unique_ptr<ShardArrays> open_shard_arrays(const fs::path& file, const ShardLayout& layout,
                                               const ReadOptions& how, SampleFault& fault) {
  if (!layout.contiguous) {
    try {
      return std::make_unique<LibraryArrays>(file);
    } catch (const Hdf5Failure& e) {
      fault = {e.what()};
      return nullptr;
    }
  }
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    fault = {std::string("cannot open shard: ") + std::strerror(errno)};
    return nullptr;
  }
  if (how.mapped) return std::make_unique<MappedArrays>(fd, layout, how.copies_before_map);
  return std::make_unique<ContiguousArrays>(fd, layout);
}

}  // namespace nf::data

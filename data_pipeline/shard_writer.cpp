// See shard_writer.h.
#include "data_pipeline/shard_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "core/atomic_file.h"
#include "core/check.h"
#include "core/error.h"
#include "core/hash.h"
#include "data_pipeline/hdf5_handle.h"
#include "data_pipeline/shard_format.h"

namespace nf::data {
namespace fs = std::filesystem;
namespace {

// Creates a contiguous array whose place in the file is fixed at once, and fills it unless `values`
// is null. Returns its offset in the file.
uint64_t create_array(hid_t file, const char* name, hid_t type, uint64_t length,
                      const void* values) {
  const hsize_t dims = length;
  const Hdf5Handle space(H5Screate_simple(1, &dims, nullptr), H5Sclose, name);
  const Hdf5Handle plist(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, name);
  hdf5_check(H5Pset_layout(plist, H5D_CONTIGUOUS), name);
  hdf5_check(H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY), name);
  hdf5_check(H5Pset_fill_time(plist, H5D_FILL_TIME_NEVER), name);
  hdf5_check(H5Pset_obj_track_times(plist, false), name);
  const Hdf5Handle set(H5Dcreate2(file, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT),
                       H5Dclose, name);
  if (values != nullptr && length > 0)
    hdf5_check(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), name);
  return H5Dget_offset(set);
}

// Of fixed length: it then lies in the object header, which HDF5 guards by a checksum. Text of
// variable length lies in a heap without one, and the library was seen to loop for ever on a heap
// with one flipped bit.
void put_text(hid_t file, const char* name, const std::string& text) {
  const Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose, name);
  hdf5_check(H5Tset_size(type, text.size() + 1), name);
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose, name);
  const Hdf5Handle attribute(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT),
                             H5Aclose, name);
  hdf5_check(H5Awrite(attribute, type, text.c_str()), name);
}

void put_number(hid_t file, const char* name, uint64_t value) {
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose, name);
  const Hdf5Handle attribute(H5Acreate2(file, name, H5T_STD_U64LE, space, H5P_DEFAULT, H5P_DEFAULT),
                             H5Aclose, name);
  hdf5_check(H5Awrite(attribute, H5T_NATIVE_UINT64, &value), name);
}

// Everything but the bytes of /data; returns where they belong. Arrays are written as they lie in
// memory, hence the little-endian types: the programs run on little-endian machines only (checked
// below).
uint64_t write_structure(const fs::path& path, const ShardTable& t) {
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "access list");
  hdf5_check(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18), "format version");
  hdf5_check(H5Pset_alignment(access, kShardAlignment, kShardAlignment), "alignment");
  const Hdf5Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "creation list");
  hdf5_check(H5Pset_obj_track_times(creation, false), "no times");
  Hdf5Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), H5Fclose,
                  "cannot create");
  put_text(file, "format", kShardFormat);
  put_number(file, "version", kShardVersion);
  put_text(file, "split", t.split);
  put_number(file, "first_index", t.first_index);
  put_text(file, "fingerprint", t.fingerprint);
  create_array(file, "/offset", H5T_STD_U64LE, t.offset.size(), t.offset.data());
  create_array(file, "/crc32c", H5T_STD_U32LE, t.crc32c.size(), t.crc32c.data());
  create_array(file, "/label_offset", H5T_STD_U32LE, t.label_offset.size(), t.label_offset.data());
  create_array(file, "/label", H5T_STD_I32LE, t.label.size(), t.label.data());
  create_array(file, "/width", H5T_STD_U16LE, t.width.size(), t.width.data());
  create_array(file, "/height", H5T_STD_U16LE, t.height.size(), t.height.data());
  const uint64_t at = create_array(file, "/data", H5T_STD_U8LE, t.offset.back(), nullptr);
  file.close("cannot write");
  return at;
}

class Descriptor {
 public:
  explicit Descriptor(const fs::path& path)
      : path_(path), fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC)) {
    if (fd_ < 0) throw_io_error(path, "cannot open", errno);
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  void write_at(std::span<const uint8_t> bytes, uint64_t at) const {
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw_io_error(path_, "cannot write", errno);
      bytes = bytes.subspan(static_cast<size_t>(n));
      at += static_cast<uint64_t>(n);
    }
  }
  // Adds the bytes [begin, end) of the file.
  void hash(uint64_t begin, uint64_t end, Sha256& sha) const {
    std::vector<std::byte> block(1 << 16);
    while (begin < end) {
      const size_t want = std::min<uint64_t>(block.size(), end - begin);
      const ssize_t n = ::pread(fd_, block.data(), want, static_cast<off_t>(begin));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) throw_io_error(path_, "cannot read", n < 0 ? errno : EIO);
      sha.update(std::span(block).first(static_cast<size_t>(n)));
      begin += static_cast<uint64_t>(n);
    }
  }
  uint64_t size() const {
    struct stat status {};
    if (::fstat(fd_, &status) != 0) throw_io_error(path_, "cannot stat", errno);
    return static_cast<uint64_t>(status.st_size);
  }
  void finish() {
    if (::fsync(fd_) != 0) throw_io_error(path_, "cannot fsync", errno);
    if (::close(std::exchange(fd_, -1)) != 0) throw_io_error(path_, "cannot close", errno);
  }

 private:
  fs::path path_;
  int fd_;
};

}  // namespace

void ShardTable::add(uint32_t crc, uint64_t bytes, std::span<const int32_t> labels, uint16_t w,
                     uint16_t h) {
  offset.push_back(offset.back() + bytes);
  crc32c.push_back(crc);
  label.insert(label.end(), labels.begin(), labels.end());
  label_offset.push_back(static_cast<uint32_t>(label.size()));
  width.push_back(w);
  height.push_back(h);
}

std::string write_shard(const fs::path& file, const ShardTable& table, const SampleBytes& bytes) {
  static_assert(std::endian::native == std::endian::little);
  NF_CHECK(table.samples() > 0);
  uint64_t at = 0;
  try {
    const std::lock_guard lock(hdf5_mutex());
    hdf5_begin();
    errno = 0;
    at = write_structure(file, table);
  } catch (const Hdf5Failure& e) {
    if (errno != 0) throw_io_error(file, "cannot write shard", errno);
    throw Error(ExitCode::kOther, file.string(),
                std::string("cannot write shard: HDF5: ") + e.what(),
                "check that the folder is writable and the disk not full");
  }
  Descriptor out(file);
  const uint64_t end = at + table.offset.back(), size = out.size();
  NF_CHECK(size >= end, "HDF5 reserves the data's place");
  // Hashed while they are at hand: reading the images back would cost as much as writing them.
  Sha256 sha;
  out.hash(0, at, sha);
  for (uint64_t i = 0; i < table.samples(); ++i) {
    const auto sample = bytes(i);
    NF_CHECK(sample.size() == table.offset[i + 1] - table.offset[i]);
    out.write_at(sample, at + table.offset[i]);
    sha.update(std::as_bytes(sample));
  }
  out.hash(end, size, sha);
  out.finish();
  return sha.hex();
}

}  // namespace nf::data

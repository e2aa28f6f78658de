// See shard_format.h.
#include "data_pipeline/shard_format.h"

#include <array>
#include <cstdio>

#include "core/error.h"
#include "data_pipeline/hdf5_handle.h"

namespace nf::data {
namespace fs = std::filesystem;
namespace {

template <class Integer>
void put_le(std::vector<std::byte>& to, Integer value) {
  for (size_t i = 0; i < sizeof value; ++i)
    to.push_back(static_cast<std::byte>(static_cast<uint64_t>(value) >> (8 * i)));
}

std::vector<std::byte> crc_head(uint64_t id, std::span<const int32_t> labels) {
  std::vector<std::byte> head;
  head.reserve(12 + 4 * labels.size());
  put_le(head, id);
  put_le(head, static_cast<uint32_t>(labels.size()));
  for (const int32_t label : labels) put_le(head, static_cast<uint32_t>(label));
  return head;
}

// Polynomials over GF(2) modulo CRC32C's, bit 31 = x^0 (the reflected order of the CRC itself).
constexpr uint32_t kPolynomial = 0x82F63B78;

constexpr uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = uint32_t{1} << 31; bit != 0; bit >>= 1) {
    if ((a & bit) != 0) product ^= b;
    b = (b & 1) != 0 ? (b >> 1) ^ kPolynomial : b >> 1;
  }
  return product;
}

// x^(8 n): multiplying a CRC by it appends n zero bytes.
constexpr uint32_t power_of_bytes(uint64_t n) {
  uint32_t result = uint32_t{1} << 31;        // x^0
  uint32_t square = uint32_t{1} << (31 - 8);  // x^8
  for (; n != 0; n >>= 1, square = multiply(square, square)) {
    if ((n & 1) != 0) result = multiply(result, square);
  }
  return result;
}

struct Array {
  uint64_t length, at;
};

// A contiguous, unfiltered, one-dimensional array of little-endian integers of `size` bytes.
Array find_array(hid_t file, const char* name, size_t size, uint64_t file_bytes) {
  const std::string where = std::string(name) + ": ";
  const Hdf5Handle set(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose, where + "missing");
  const Hdf5Handle type(H5Dget_type(set), H5Tclose, where + "no type");
  const Hdf5Handle space(H5Dget_space(set), H5Sclose, where + "no space");
  const Hdf5Handle plist(H5Dget_create_plist(set), H5Pclose, where + "no layout");
  if (H5Tget_class(type) != H5T_INTEGER || H5Tget_size(type) != size ||
      (size > 1 && H5Tget_order(type) != H5T_ORDER_LE)) {
    throw Hdf5Failure(where + "wrong type");
  }
  if (H5Pget_layout(plist) != H5D_CONTIGUOUS) throw Hdf5Failure(where + "not contiguous");
  hsize_t length = 0;
  if (H5Sget_simple_extent_ndims(space) != 1 ||
      H5Sget_simple_extent_dims(space, &length, nullptr) != 1) {
    throw Hdf5Failure(where + "not one-dimensional");
  }
  const haddr_t at = H5Dget_offset(set);
  if (at == HADDR_UNDEF && length > 0) throw Hdf5Failure(where + "no data");
  if (length > 0 && (at > file_bytes || length > (file_bytes - at) / size))
    throw Hdf5Failure(where + "beyond the end of the file");
  return {length, length > 0 ? at : 0};
}

std::string read_text(hid_t file, const char* name) {
  const std::string what = std::string("attribute ") + name;
  const Hdf5Handle attribute(H5Aopen(file, name, H5P_DEFAULT), H5Aclose, what + ": missing");
  const Hdf5Handle type(H5Aget_type(attribute), H5Tclose, what + ": no type");
  const size_t size = H5Tget_size(type);
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) > 0 || size > 4096)
    throw Hdf5Failure(what + ": wrong type");
  std::string text(size, '\0');
  hdf5_check(H5Aread(attribute, type, text.data()), what + ": unreadable");
  return text.substr(0, text.find('\0'));
}

uint64_t read_number(hid_t file, const char* name) {
  const std::string what = std::string("attribute ") + name;
  const Hdf5Handle attribute(H5Aopen(file, name, H5P_DEFAULT), H5Aclose, what + ": missing");
  uint64_t value = 0;
  hdf5_check(H5Aread(attribute, H5T_NATIVE_UINT64, &value), what + ": unreadable");
  return value;
}

ShardLayout read_layout(const fs::path& path, uint64_t file_bytes) {
  const Hdf5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose,
                        "not a readable HDF5 file");
  if (read_text(file, "format") != kShardFormat) throw Hdf5Failure("not a shard");
  if (const uint64_t version = read_number(file, "version"); version != kShardVersion) {
    throw Hdf5Failure("shard version " + std::to_string(version) + ", this program reads version " +
                      std::to_string(kShardVersion));
  }
  ShardLayout layout;
  layout.split = read_text(file, "split");
  layout.fingerprint = read_text(file, "fingerprint");
  layout.first_index = read_number(file, "first_index");
  const Array data = find_array(file, "/data", 1, file_bytes),
              offset = find_array(file, "/offset", 8, file_bytes);
  const Array crc = find_array(file, "/crc32c", 4, file_bytes),
              label = find_array(file, "/label", 4, file_bytes);
  const Array label_offset = find_array(file, "/label_offset", 4, file_bytes);
  const Array width = find_array(file, "/width", 2, file_bytes),
              height = find_array(file, "/height", 2, file_bytes);
  const uint64_t n = crc.length;
  if (offset.length != n + 1 || label_offset.length != n + 1 || width.length != n ||
      height.length != n) {
    throw Hdf5Failure("arrays of different lengths");
  }
  layout.samples = n;
  layout.labels = label.length;
  layout.bytes = data.length;
  layout.data_at = data.at;
  layout.offset_at = offset.at;
  layout.crc32c_at = crc.at;
  layout.label_offset_at = label_offset.at;
  layout.label_at = label.at;
  layout.width_at = width.at;
  layout.height_at = height.at;
  return layout;
}

}  // namespace

std::mutex& hdf5_mutex() {
  static std::mutex mutex;
  return mutex;
}

std::string shard_file_name(const std::string& split, uint64_t shard) {
  char number[32];
  std::snprintf(number, sizeof number, "-%05llu.h5", static_cast<unsigned long long>(shard));
  return split + number;
}

uint32_t sample_crc32c(uint64_t id, std::span<const int32_t> labels,
                       std::span<const uint8_t> bytes) {
  return crc32c(std::as_bytes(bytes), crc32c(crc_head(id, labels)));
}

uint32_t sample_crc32c(uint64_t id, std::span<const int32_t> labels, uint32_t bytes_crc,
                       uint64_t bytes_size) {
  return multiply(power_of_bytes(bytes_size), crc32c(crc_head(id, labels))) ^ bytes_crc;
}

SplitFingerprint::SplitFingerprint(const std::vector<std::string>& class_names) {
  std::vector<std::byte> head;
  sha_.update(as_bytes("nf-split 1\n"));
  put_le(head, static_cast<uint64_t>(class_names.size()));
  for (const auto& name : class_names) {
    put_le(head, static_cast<uint64_t>(name.size()));
    for (const char c : name) head.push_back(static_cast<std::byte>(c));
  }
  sha_.update(head);
}

void SplitFingerprint::add(uint32_t crc, uint64_t bytes, std::span<const int32_t> labels) {
  std::vector<std::byte> record;
  record.reserve(16 + 4 * labels.size());
  put_le(record, crc);
  put_le(record, bytes);
  put_le(record, static_cast<uint32_t>(labels.size()));
  for (const int32_t label : labels) put_le(record, static_cast<uint32_t>(label));
  sha_.update(record);
}

std::string SplitFingerprint::hex() { return sha_.hex(); }

ShardLayout read_shard_layout(const fs::path& file) {
  std::error_code ec;
  const uint64_t bytes = fs::file_size(file, ec);
  if (ec)
    throw Error(ExitCode::kData, file.string(), "shard is missing",
                "pack the data set again with nf-pack");
  const std::lock_guard lock(hdf5_mutex());
  hdf5_begin();
  try {
    return read_layout(file, bytes);
  } catch (const Hdf5Failure& e) {
    throw Error(ExitCode::kData, file.string(), std::string("damaged shard: ") + e.what(),
                "restore the file from a copy, or pack the data set again with nf-pack");
  }
}

}  // namespace nf::data

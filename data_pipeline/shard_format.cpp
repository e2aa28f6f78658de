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

struct Array {
  uint64_t length = 0, at = 0;
  bool as_written = false;  // contiguous, in the type nf-pack writes
};

// A one-dimensional array of integers. Where it is not as nf-pack writes it, the HDF5 library can
// still read it, unless its bytes lie in other files.
Array find_array(hid_t file, ShardArray which, uint64_t file_bytes) {
  const char* name = shard_array_name(which);
  const size_t size = shard_array_element_bytes(which);
  const std::string where = std::string(name) + ": ";
  const Hdf5Handle set(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose, where + "missing");
  const Hdf5Handle type(H5Dget_type(set), H5Tclose, where + "no type");
  const Hdf5Handle space(H5Dget_space(set), H5Sclose, where + "no space");
  const Hdf5Handle plist(H5Dget_create_plist(set), H5Pclose, where + "no layout");
  if (H5Tget_class(type) != H5T_INTEGER) throw Hdf5Failure(where + "wrong type");
  hsize_t length = 0;
  if (H5Sget_simple_extent_ndims(space) != 1 ||
      H5Sget_simple_extent_dims(space, &length, nullptr) != 1) {
    throw Hdf5Failure(where + "not one-dimensional");
  }
  const H5D_layout_t layout = H5Pget_layout(plist);
  if ((layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED && layout != H5D_COMPACT) ||
      H5Pget_external_count(plist) != 0)
    throw Hdf5Failure(where + "lies in another file");
  const bool type_fits =
      H5Tget_size(type) == size && (size == 1 || H5Tget_order(type) == H5T_ORDER_LE);
  if (layout != H5D_CONTIGUOUS || !type_fits) return {length, 0, false};
  const haddr_t at = H5Dget_offset(set);
  if (at == HADDR_UNDEF && length > 0) throw Hdf5Failure(where + "no data");
  if (length > 0 && (at > file_bytes || length > (file_bytes - at) / size))
    throw Hdf5Failure(where + "beyond the end of the file");
  return {length, length > 0 ? at : 0, true};
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
  const auto find = [&](ShardArray which, uint64_t& at) {
    const Array array = find_array(file, which, file_bytes);
    layout.contiguous = layout.contiguous && array.as_written;
    at = array.at;
    return array.length;
  };
  layout.samples = find(ShardArray::kCrc32c, layout.crc32c_at);
  layout.labels = find(ShardArray::kLabel, layout.label_at);
  layout.bytes = find(ShardArray::kData, layout.data_at);
  const uint64_t n = layout.samples;
  if (find(ShardArray::kOffset, layout.offset_at) != n + 1 ||
      find(ShardArray::kLabelOffset, layout.label_offset_at) != n + 1 ||
      find(ShardArray::kWidth, layout.width_at) != n ||
      find(ShardArray::kHeight, layout.height_at) != n) {
    throw Hdf5Failure("arrays of different lengths");
  }
  return layout;
}

}  // namespace

const char* shard_array_name(ShardArray array) {
  switch (array) {
    case ShardArray::kData:
      return "/data";
    case ShardArray::kOffset:
      return "/offset";
    case ShardArray::kCrc32c:
      return "/crc32c";
    case ShardArray::kLabelOffset:
      return "/label_offset";
    case ShardArray::kLabel:
      return "/label";
    case ShardArray::kWidth:
      return "/width";
    case ShardArray::kHeight:
      return "/height";
  }
  return "";
}

uint64_t shard_array_element_bytes(ShardArray array) {
  switch (array) {
    case ShardArray::kData:
      return 1;
    case ShardArray::kOffset:
      return 8;
    case ShardArray::kWidth:
    case ShardArray::kHeight:
      return 2;
    default:
      return 4;
  }
}

ShardArrayPlace ShardLayout::place(ShardArray array) const {
  const uint64_t element = shard_array_element_bytes(array);
  switch (array) {
    case ShardArray::kData:
      return {data_at, element};
    case ShardArray::kOffset:
      return {offset_at, element};
    case ShardArray::kCrc32c:
      return {crc32c_at, element};
    case ShardArray::kLabelOffset:
      return {label_offset_at, element};
    case ShardArray::kLabel:
      return {label_at, element};
    case ShardArray::kWidth:
      return {width_at, element};
    case ShardArray::kHeight:
      return {height_at, element};
  }
  return {};
}

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
  return crc32c_joined(crc32c(crc_head(id, labels)), bytes_crc, bytes_size);
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

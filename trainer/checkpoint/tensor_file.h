// Reader and writer of the safetensors format (8-byte little-endian header length, JSON header, raw
// tensors), torch-free. Promises: equal content gives equal bytes; a file is checked completely
// before a tensor is handed out, whatever its bytes are; every fault is an Error(kWeights) that
// says what is wrong. Format: huggingface.co/docs/safetensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nf::train {

enum class Dtype { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };
size_t dtype_size(Dtype dtype);            // bytes of an element
std::string_view dtype_name(Dtype dtype);  // as in the header: "F32", "BF16", ...

using Metadata = std::map<std::string, std::string>;

struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;  // empty: a scalar
  uint64_t begin = 0;          // bytes, from the end of the header
  uint64_t end = 0;
};

struct TensorFileInfo {
  std::vector<TensorInfo> tensors;  // in the order of their bytes
  Metadata metadata;                // "__metadata__"
  uint64_t data_begin = 0;          // bytes before the first tensor
  uint64_t file_bytes = 0;
  const TensorInfo* find(std::string_view name) const;  // null when there is none
};

// Bytes and XXH3-64 of a whole file, for the manifest.
struct FileDigest {
  uint64_t bytes = 0;
  uint64_t xxh3 = 0;
  bool operator==(const FileDigest&) const = default;
};

// A tensor to write; data must hold dtype_size * product(shape) bytes.
struct TensorBytes {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
};

// Longest header that is accepted, as in the reference implementation.
inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;

// Writes and fsyncs the file. Order of the tensors: element size descending, then name, so every
// tensor is aligned to its element and the bytes do not depend on the order given. Throws
// Error(kOther) when the disk refuses; the file is then torn (callers write under a temporary
// name).
FileDigest write_tensor_file(const std::filesystem::path& file,
                             const std::vector<TensorBytes>& tensors, const Metadata& metadata);

// Header only, checked: length, JSON, duplicate names, types, shapes, and that the tensors fill the
// rest of the file without gap or overlap.
TensorFileInfo read_tensor_header(const std::filesystem::path& file);

// Reads the whole file once, front to back. destination(info) gives the place of info.end -
// info.begin bytes for each tensor. The digest covers exactly the bytes that were handed out.
struct TensorFileContents {
  TensorFileInfo info;
  FileDigest digest;
};
TensorFileContents read_tensor_file(
    const std::filesystem::path& file,
    const std::function<std::span<std::byte>(const TensorInfo&)>& destination);

}  // namespace nf::train

// See tensor_file.h. Bytes are hashed as they pass, so a file is written and read once.
#include "trainer/checkpoint/tensor_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <tuple>

#include "core/atomic_file.h"
#include "core/check.h"
#include "core/error.h"
#include "trainer/checkpoint/tensor_header.h"

namespace nf::train {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr size_t kPiece = size_t{8}
                          << 20;  // bytes per system call: hash while the piece is in the cache

class Xxh3 {
 public:
  Xxh3() : state_(XXH3_createState(), &XXH3_freeState) {
    NF_CHECK(state_ != nullptr && XXH3_64bits_reset(state_.get()) == XXH_OK);
  }
  void update(const void* data, size_t size) {
    if (size > 0) XXH3_64bits_update(state_.get(), data, size);
    bytes_ += size;
  }
  FileDigest digest() const { return {bytes_, XXH3_64bits_digest(state_.get())}; }

 private:
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_;
  uint64_t bytes_ = 0;
};

// Sequential, hashed reading of a file whose size is known from the start.
class HashedInput {
 public:
  explicit HashedInput(const std::filesystem::path& path)
      : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) fail(std::string("cannot open: ") + std::strerror(errno));
    struct stat st {};
    if (::fstat(fd_, &st) != 0 || !S_ISREG(st.st_mode)) {
      ::close(fd_);
      fail("not a regular file");
    }
    size_ = static_cast<uint64_t>(st.st_size);
  }
  ~HashedInput() { ::close(fd_); }
  HashedInput(const HashedInput&) = delete;
  HashedInput& operator=(const HashedInput&) = delete;

  uint64_t size() const { return size_; }
  FileDigest digest() const { return hash_.digest(); }

  void read(std::byte* out, size_t size) {
    while (size > 0) {
      const ssize_t n = ::read(fd_, out, std::min(size, kPiece));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(std::string("cannot read: ") + std::strerror(errno));
      if (n == 0) fail("the file is shorter than when it was opened");
      hash_.update(out, static_cast<size_t>(n));
      out += n;
      size -= static_cast<size_t>(n);
    }
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ExitCode::kWeights, path_.string(), what, "use another checkpoint or weights file");
  }

 private:
  const std::filesystem::path& path_;
  int fd_;
  uint64_t size_ = 0;
  Xxh3 hash_;
};

TensorFileInfo read_header(HashedInput& input, const std::filesystem::path& file) {
  uint64_t length = 0;
  if (input.size() < sizeof length)
    input.fail("not a safetensors file: it has only " + std::to_string(input.size()) + " bytes");
  input.read(reinterpret_cast<std::byte*>(&length), sizeof length);
  if (length > kMaxHeaderBytes || length > input.size() - sizeof length)
    input.fail("not a safetensors file, or damaged: a header of " + std::to_string(length) +
               " bytes in a file of " + std::to_string(input.size()));
  std::string header(length, '\0');
  input.read(reinterpret_cast<std::byte*>(header.data()), header.size());
  const uint64_t data_begin = sizeof length + length;
  TensorFileInfo info = parse_tensor_header(file, header, input.size() - data_begin);
  info.data_begin = data_begin;
  info.file_bytes = input.size();
  return info;
}

// The tensors in the order of the file, each with its place.
std::vector<TensorInfo> lay_out(const std::vector<const TensorBytes*>& tensors) {
  std::vector<TensorInfo> out;
  std::set<std::string_view> names;
  uint64_t at = 0;
  for (const TensorBytes* t : tensors) {
    NF_CHECK(t->name != "__metadata__" && names.insert(t->name).second,
             "tensor name given twice or reserved: " + t->name);
    const uint64_t bytes = tensor_bytes(t->dtype, t->shape);
    NF_CHECK(bytes == t->data.size(), "data of " + t->name + " does not fit its shape");
    out.push_back({t->name, t->dtype, t->shape, at, at + bytes});
    at += bytes;
  }
  return out;
}

}  // namespace

FileDigest write_tensor_file(const std::filesystem::path& file,
                             const std::vector<TensorBytes>& tensors, const Metadata& metadata) {
  std::vector<const TensorBytes*> order;
  order.reserve(tensors.size());
  for (const TensorBytes& t : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const TensorBytes* a, const TensorBytes* b) {
    const size_t sa = dtype_size(a->dtype), sb = dtype_size(b->dtype);
    return sa != sb ? sa > sb : a->name < b->name;
  });
  const std::string header = print_tensor_header(lay_out(order), metadata);
  const uint64_t length = header.size();
  NF_CHECK(length <= kMaxHeaderBytes, "too many tensors for one file");

  OutputFile out(file);
  Xxh3 hash;
  const auto put = [&](const void* data, size_t size) {
    hash.update(data, size);
    out.write(data, size);
  };
  put(&length, sizeof length);
  put(header.data(), header.size());
  for (const TensorBytes* t : order)
    for (size_t at = 0; at < t->data.size(); at += kPiece)
      put(t->data.data() + at, std::min(kPiece, t->data.size() - at));
  out.finish();
  return hash.digest();
}

TensorFileInfo read_tensor_header(const std::filesystem::path& file) {
  HashedInput input(file);
  return read_header(input, file);
}

TensorFileContents read_tensor_file(
    const std::filesystem::path& file,
    const std::function<std::span<std::byte>(const TensorInfo&)>& destination) {
  HashedInput input(file);
  TensorFileContents out;
  out.info = read_header(input, file);
  for (const TensorInfo& t : out.info.tensors) {
    const std::span<std::byte> place = destination(t);
    NF_CHECK(place.size() == t.end - t.begin, "no room for tensor " + t.name);
    input.read(place.data(), place.size());
  }
  out.digest = input.digest();
  return out;
}

}  // namespace nf::train

// See tar_reader.h. Formats: POSIX.1-1988 ustar, POSIX.1-2001 pax, GNU tar manual "Basic Tar
// Format".
#include "data_pipeline/tar_reader.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <fstream>
#include <optional>
#include <string_view>

#include "core/atomic_file.h"
#include "core/error.h"

namespace nf::data {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kBlock = 512;
constexpr uint64_t kMaxNameRecord = 1 << 20;  // bytes of a long name or a pax header
using Block = std::array<char, kBlock>;

std::string_view field(const Block& block, size_t at, size_t size) {
  const std::string_view text(block.data() + at, size);
  return text.substr(0, text.find('\0'));
}

// Octal digits, or base 256 when the first bit is set.
std::optional<uint64_t> number(const Block& block, size_t at, size_t size) {
  const auto* p = reinterpret_cast<const unsigned char*>(block.data()) + at;
  uint64_t value = 0;
  if ((p[0] & 0x80) != 0) {
    value = p[0] & 0x7F;
    for (size_t i = 1; i < size; ++i) {
      if (value >> 55 != 0) return std::nullopt;
      value = value << 8 | p[i];
    }
    return value;
  }
  std::string_view text = field(block, at, size);
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  text = text.substr(0, text.find(' '));
  if (text.empty()) return 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value, 8);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

// The checksum sums all bytes with its own field as blanks.
bool checksum_matches(const Block& block) {
  uint64_t sum = 0;
  for (size_t i = 0; i < kBlock; ++i) {
    sum += i >= 148 && i < 156 ? uint64_t{' '} : static_cast<unsigned char>(block[i]);
  }
  return number(block, 148, 8) == sum;
}

struct PaxRecords {
  std::optional<std::string> path;
  std::optional<uint64_t> size;
};

// Records "LENGTH KEY=VALUE\n". Returns false when they are malformed.
bool parse_pax(std::string_view text, PaxRecords& records) {
  while (!text.empty()) {
    size_t length = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), length);
    const auto digits = static_cast<size_t>(result.ptr - text.data());
    if (result.ec != std::errc() || length > text.size() || length < digits + 3 ||
        text[digits] != ' ' || text[length - 1] != '\n') {
      return false;
    }
    const std::string_view record = text.substr(digits + 1, length - digits - 2);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos) return false;
    const std::string_view key = record.substr(0, equals), value = record.substr(equals + 1);
    if (key == "path") records.path = std::string(value);
    if (key == "size") {
      uint64_t size = 0;
      if (std::from_chars(value.data(), value.data() + value.size(), size).ec != std::errc())
        return false;
      records.size = size;
    }
    text.remove_prefix(length);
  }
  return true;
}

class TarIndexer {
 public:
  explicit TarIndexer(const fs::path& path) : path_(path), file_(path, std::ios::binary) {
    if (!file_)
      throw Error(ExitCode::kData, path.string(), "cannot read the tar file",
                  "check the path and its permissions");
    size_ = fs::file_size(path);
  }

  std::vector<TarMember> run() {
    Block block;
    while (read_header(block)) take(block);
    if (long_name_ || pax_.path || pax_.size) damaged("ends after an extended header");
    return std::move(members_);
  }

 private:
  [[noreturn]] void damaged(const std::string& what) const {
    throw Error(ExitCode::kData, path_.string() + ": offset " + std::to_string(at_),
                "tar file " + what, "copy or make the archive again");
  }

  // False at the end: a block of zeros, or the end of the file.
  bool read_header(Block& block) {
    if (at_ == size_) return false;
    if (size_ - at_ < kBlock) damaged("is truncated");
    read(at_, block.data(), kBlock);
    if (std::all_of(block.begin(), block.end(), [](char c) { return c == 0; })) return false;
    if (!checksum_matches(block)) damaged("is damaged: wrong header checksum");
    return true;
  }

  void take(const Block& block) {
    const char type = block[156];
    const auto size = number(block, 124, 12);
    if (!size) damaged("is damaged: size is not a number");
    const bool extended = type == 'L' || type == 'K' || type == 'x' || type == 'g';
    const bool has_bytes = extended || type == '0' || type == '\0' || type == '7';
    uint64_t bytes = *size;
    if (!extended && pax_.size) bytes = *pax_.size;
    if (!has_bytes) bytes = 0;  // links and folders may carry a size all the same
    if (bytes > size_ - at_ - kBlock) damaged("is truncated");
    if (type == 'S' || type == 'M')
      damaged("holds sparse or multi-volume members, which are not supported");
    if (extended) {
      take_extended(type, bytes);
    } else {
      take_member(block, type, bytes);
    }
    const uint64_t padded = (bytes + kBlock - 1) / kBlock * kBlock;
    at_ = std::min(size_, at_ + kBlock + padded);
  }

  void take_extended(char type, uint64_t bytes) {
    if (type == 'K' || type == 'g') return;  // link targets and global records name no file
    if (bytes > kMaxNameRecord) damaged("is damaged: overlong extended header");
    std::string text(bytes, '\0');
    read(at_ + kBlock, text.data(), bytes);
    if (type == 'L') {
      long_name_ = text.substr(0, text.find('\0'));
    } else if (!parse_pax(text, pax_)) {
      damaged("is damaged: malformed pax header");
    }
  }

  void take_member(const Block& block, char type, uint64_t bytes) {
    std::string name(field(block, 0, 100));
    const bool ustar = std::memcmp(block.data() + 257, "ustar\0", 6) == 0;
    if (const auto prefix = field(block, 345, 155); ustar && !prefix.empty())
      name = std::string(prefix) + "/" + name;
    if (long_name_) name = *long_name_;
    if (pax_.path) name = *pax_.path;
    long_name_.reset();
    pax_ = {};
    while (name.rfind("./", 0) == 0 || name.rfind('/', 0) == 0)
      name.erase(0, name[0] == '/' ? 1 : 2);
    const bool folder = type == '5' || (!name.empty() && name.back() == '/');
    if (folder || name.empty() || name == ".") return;
    const bool regular = type == '0' || type == '\0' || type == '7';
    members_.push_back({std::move(name), at_ + kBlock, bytes, regular});
  }

  void read(uint64_t at, char* to, uint64_t size) {
    file_.seekg(static_cast<std::streamoff>(at));
    if (!file_.read(to, static_cast<std::streamsize>(size))) damaged("cannot be read");
  }

  fs::path path_;
  std::ifstream file_;
  uint64_t size_ = 0, at_ = 0;
  std::optional<std::string> long_name_;
  PaxRecords pax_;
  std::vector<TarMember> members_;
};

}  // namespace

bool is_tar(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  Block block;
  return in.read(block.data(), kBlock) && checksum_matches(block);
}

std::vector<TarMember> read_tar_index(const fs::path& file) { return TarIndexer(file).run(); }

}  // namespace nf::data

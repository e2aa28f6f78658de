// See shard_dataset.h.
#include "data_pipeline/shard_dataset.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>
#include <mutex>
#include <optional>

#include "core/check.h"
#include "core/error.h"
#include "data_pipeline/dataset_index.h"
#include "data_pipeline/shard_format.h"

namespace nf::data {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxOpenFiles = 64;
constexpr uint64_t kMaxLabels =
    1 << 20;  // of one sample; a damaged array must not make us allocate gigabytes
constexpr const char* kRepack =
    "restore the file from a copy, or pack the data set again with nf-pack";

// An open file, closed when the last reader lets go of it.
class ReadOnlyFile {
 public:
  explicit ReadOnlyFile(const fs::path& path)
      : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), errno_(errno) {}
  ~ReadOnlyFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  ReadOnlyFile(const ReadOnlyFile&) = delete;
  ReadOnlyFile& operator=(const ReadOnlyFile&) = delete;

  SampleFault opened() const {
    return fd_ >= 0 ? SampleFault{}
                    : SampleFault{std::string("cannot open shard: ") + std::strerror(errno_)};
  }

  SampleFault read(void* to, uint64_t size, uint64_t at) const {
    auto* p = static_cast<char*>(to);
    while (size > 0) {
      const ssize_t n = ::pread(fd_, p, size, static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return {std::string("cannot read shard: ") + std::strerror(errno)};
      if (n == 0) return {"shard ends early"};
      p += n;
      at += static_cast<uint64_t>(n);
      size -= static_cast<uint64_t>(n);
    }
    return {};
  }

 private:
  int fd_;
  int errno_;
};

// At most kMaxOpenFiles open shards; the least recently used one is closed first.
class OpenFiles {
 public:
  std::shared_ptr<const ReadOnlyFile> get(size_t shard, const fs::path& path) {
    const std::lock_guard lock(mutex_);
    const auto it = std::find_if(files_.begin(), files_.end(),
                                 [&](const Entry& e) { return e.shard == shard; });
    if (it != files_.end()) {
      files_.splice(files_.begin(), files_, it);
    } else {
      if (files_.size() >= kMaxOpenFiles) files_.pop_back();
      files_.push_front({shard, std::make_shared<const ReadOnlyFile>(path)});
    }
    auto file = files_.front().file;
    if (!file->opened().ok()) files_.pop_front();  // it may work the next time
    return file;
  }

 private:
  struct Entry {
    size_t shard;
    std::shared_ptr<const ReadOnlyFile> file;
  };
  std::mutex mutex_;
  std::list<Entry> files_;  // most recent first
};

const SplitEntry& find_split(const DatasetIndex& index, const fs::path& directory,
                             const std::string& name) {
  if (const SplitEntry* split = index.find(name)) return *split;
  std::string known;
  for (const auto& split : index.splits) known += (known.empty() ? "" : ", ") + split.name;
  throw Error(ExitCode::kData, directory.string(), "no split \"" + name + "\"",
              "the data set has: " + known);
}

ShardLayout open_layout(const fs::path& file, const ShardEntry& entry, const SplitEntry& split,
                        uint64_t first_index) {
  std::error_code ec;
  const uint64_t bytes = fs::file_size(file, ec);
  if (ec) throw Error(ExitCode::kData, file.string(), "shard is missing", kRepack);
  if (bytes != entry.bytes) {
    throw Error(ExitCode::kData, file.string(),
                std::string("shard is ") + (bytes < entry.bytes ? "truncated" : "too long") + ": " +
                    std::to_string(bytes) + " bytes, " + kDatasetFile + " says " +
                    std::to_string(entry.bytes),
                kRepack);
  }
  ShardLayout layout = read_shard_layout(file);
  if (layout.fingerprint != split.fingerprint || layout.split != split.name ||
      layout.first_index != first_index || layout.samples != entry.samples) {
    throw Error(
        ExitCode::kData, file.string(),
        "shard belongs to another data set: its fingerprint, split or place differs from " +
            std::string(kDatasetFile),
        "put back the shard that was packed with this data set, or pack again with nf-pack");
  }
  return layout;
}

}  // namespace

struct ShardDataset::Impl {
  fs::path directory;
  std::vector<std::string> class_names;
  SplitEntry split;
  std::vector<ShardLayout> layouts;
  OpenFiles files;

  Impl(const fs::path& dir, const std::string& split_name) : directory(dir) {
    DatasetIndex index = read_dataset_index(dir);
    split = find_split(index, dir, split_name);
    class_names = std::move(index.class_names);
    uint64_t first_index = 0;
    for (const auto& shard : split.shards) {
      layouts.push_back(open_layout(dir / shard.file, shard, split, first_index));
      first_index += shard.samples;
    }
  }

  SampleFault read(uint64_t index, SampleData& out) {
    const size_t shard = index / split.shard_samples;
    const uint64_t i = index % split.shard_samples;
    const auto file = files.get(shard, directory / split.shards[shard].file);
    if (auto fault = file->opened(); !fault.ok()) return fault;
    return read_from(*file, layouts[shard], i, index, out);
  }

  static SampleFault read_from(const ReadOnlyFile& file, const ShardLayout& layout, uint64_t i,
                               uint64_t index, SampleData& out) {
    uint64_t offset[2];
    uint32_t label_offset[2], crc = 0;
    SampleFault fault;
    const auto get = [&](void* to, uint64_t size, uint64_t at) {
      if (fault.ok()) fault = file.read(to, size, at);
    };
    get(offset, sizeof offset, layout.offset_at + 8 * i);
    get(label_offset, sizeof label_offset, layout.label_offset_at + 4 * i);
    get(&crc, sizeof crc, layout.crc32c_at + 4 * i);
    get(&out.width, sizeof out.width, layout.width_at + 2 * i);
    get(&out.height, sizeof out.height, layout.height_at + 2 * i);
    if (!fault.ok()) return fault;
    if (offset[0] > offset[1] || offset[1] > layout.bytes) return {"damaged offset array"};
    if (label_offset[0] > label_offset[1] || label_offset[1] > layout.labels ||
        label_offset[1] - label_offset[0] > kMaxLabels) {
      return {"damaged label offset array"};
    }
    out.bytes.resize(offset[1] - offset[0]);
    out.labels.resize(label_offset[1] - label_offset[0]);
    get(out.labels.data(), 4 * out.labels.size(), layout.label_at + uint64_t{4} * label_offset[0]);
    get(out.bytes.data(), out.bytes.size(), layout.data_at + offset[0]);
    if (!fault.ok()) return fault;
    if (sample_crc32c(index, out.labels, out.bytes) != crc) return {"CRC32C does not match"};
    return {};
  }
};

ShardDataset::ShardDataset(const fs::path& directory, const std::string& split)
    : impl_(std::make_unique<Impl>(directory, split)) {}
ShardDataset::~ShardDataset() = default;

uint64_t ShardDataset::size() const { return impl_->split.samples; }
const std::vector<std::string>& ShardDataset::class_names() const { return impl_->class_names; }
std::string ShardDataset::fingerprint() const { return impl_->split.fingerprint; }
uint64_t ShardDataset::shard_samples() const { return impl_->split.shard_samples; }

SampleFault ShardDataset::read(uint64_t index, SampleData& out) const {
  NF_CHECK(index < size());
  return impl_->read(index, out);
}

}  // namespace nf::data

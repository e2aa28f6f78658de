// See shard_dataset.h.
#include "data_pipeline/shard_dataset.h"

#include <algorithm>
#include <charconv>
#include <mutex>
#include <string_view>

#include "core/check.h"
#include "core/error.h"
#include "data_pipeline/dataset_index.h"
#include "data_pipeline/open_shards.h"
#include "data_pipeline/shard_format.h"

namespace nf::data {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxOpenFiles = 64;
// Up to this many shards are opened and checked at once; a larger data set would keep the first
// batch waiting, so its shards are checked when they are first read.
constexpr size_t kCheckedAtStart = 256;
constexpr const char* kRepack =
    "restore the file from a copy, or pack the data set again with nf-pack";

const SplitEntry& find_split(const DatasetIndex& index, const fs::path& directory,
                             const std::string& name) {
  if (const SplitEntry* split = index.find(name)) return *split;
  std::string known;
  for (const auto& split : index.splits) known += (known.empty() ? "" : ", ") + split.name;
  throw Error(ExitCode::kData, directory.string(), "no split \"" + name + "\"",
              "the data set has: " + known);
}

// name == shard_file_name(split, shard), at a tenth of the cost: there may be 440,000 of them.
bool is_usual_name(std::string_view name, std::string_view split, uint64_t shard) {
  constexpr std::string_view kEnding = ".h5";
  if (!name.starts_with(split) || !name.ends_with(kEnding)) return false;
  if (name.size() < split.size() + 1 + kEnding.size() || name[split.size()] != '-') return false;
  const std::string_view digits =
      name.substr(split.size() + 1, name.size() - split.size() - 1 - kEnding.size());
  char expected[24];
  char* end = std::to_chars(expected, expected + sizeof expected, shard).ptr;
  const auto length = static_cast<size_t>(end - expected);
  const size_t zeros = length < 5 ? 5 - length : 0;
  return digits.size() == zeros + length &&
         digits.substr(0, zeros) == std::string_view("00000").substr(0, zeros) &&
         digits.substr(zeros) == std::string_view(expected, length);
}

// What dataset.json says of one shard.
struct Expected {
  uint64_t bytes, first_index, samples;
};

ShardLayout open_layout(const fs::path& file, const Expected& expected, const std::string& split,
                        const std::string& fingerprint) {
  std::error_code ec;
  const uint64_t bytes = fs::file_size(file, ec);
  if (ec) throw Error(ExitCode::kData, file.string(), "shard is missing", kRepack);
  const bool same_size = bytes == expected.bytes;
  const auto refuse_size = [&] {
    throw Error(ExitCode::kData, file.string(),
                std::string("shard is ") + (bytes < expected.bytes ? "truncated" : "too long") +
                    ": " + std::to_string(bytes) + " bytes, " + kDatasetFile + " says " +
                    std::to_string(expected.bytes),
                kRepack);
  };
  ShardLayout layout;
  try {
    layout = read_shard_layout(file);
  } catch (const Error&) {
    if (!same_size) refuse_size();
    throw;
  }
  // Only a shard that was saved again in another layout may have another size.
  if (!same_size && layout.contiguous) refuse_size();
  if (layout.fingerprint != fingerprint || layout.split != split ||
      layout.first_index != expected.first_index || layout.samples != expected.samples) {
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
  std::string split, fingerprint;
  uint64_t samples = 0, shard_samples = 0;
  std::vector<uint64_t> shard_bytes;
  std::vector<std::string> shard_names;  // empty when they are those nf-pack gives
  const ReadOptions how;
  OpenShards open_shards{kMaxOpenFiles};
  std::mutex layouts_mutex;
  std::vector<std::unique_ptr<const ShardLayout>> layouts;  // null until a shard is first read

  Impl(const fs::path& dir, const std::string& split_name, const ReadOptions& way)
      : directory(dir), how(way) {
    DatasetIndex index = read_dataset_index(dir);
    const SplitEntry& entry = find_split(index, dir, split_name);
    split = split_name;
    fingerprint = entry.fingerprint;
    samples = entry.samples;
    shard_samples = entry.shard_samples;
    class_names = std::move(index.class_names);
    shard_bytes.reserve(entry.shards.size());
    bool usual_names = true;
    for (size_t k = 0; k < entry.shards.size(); ++k) {
      shard_bytes.push_back(entry.shards[k].bytes);
      usual_names = usual_names && is_usual_name(entry.shards[k].file, split, k);
    }
    if (!usual_names)
      for (const ShardEntry& shard : entry.shards) shard_names.push_back(shard.file);
    layouts.resize(shard_bytes.size());
    if (shard_bytes.size() > kCheckedAtStart) return;
    for (uint64_t shard = 0; shard < shard_bytes.size(); ++shard) layout_of(shard);
  }

  fs::path file_of(uint64_t shard) const {
    return directory / (shard_names.empty() ? shard_file_name(split, shard) : shard_names[shard]);
  }

  // Read from the file the first time, then kept for the life of the data set (200 bytes a shard).
  const ShardLayout& layout_of(uint64_t shard) {
    {
      const std::lock_guard lock(layouts_mutex);
      if (layouts[shard]) return *layouts[shard];
    }
    const uint64_t first_index = shard * shard_samples;
    const Expected expected{shard_bytes[shard], first_index,
                            std::min(shard_samples, samples - first_index)};
    auto layout =
        std::make_unique<ShardLayout>(open_layout(file_of(shard), expected, split, fingerprint));
    layout->split = layout->fingerprint = std::string();  // compared; not needed again
    const std::lock_guard lock(layouts_mutex);
    if (!layouts[shard]) layouts[shard] = std::move(layout);
    return *layouts[shard];
  }

  // Null with a fault when the file cannot be opened now; throws when it is not the right shard.
  std::shared_ptr<const OpenShard> shard_of(uint64_t shard, SampleFault& fault) {
    return open_shards.get(shard, [&]() -> std::shared_ptr<const OpenShard> {
      const ShardLayout& layout = layout_of(shard);
      auto arrays = open_shard_arrays(file_of(shard), layout, how, fault);
      if (!arrays) return nullptr;
      return std::make_shared<const OpenShard>(std::move(arrays), layout);
    });
  }

  // Everything but the bytes.
  SampleFault read_row(uint64_t index, std::shared_ptr<const OpenShard>& shard, SampleRow& row,
                       SampleData& out) {
    SampleFault fault;
    shard = shard_of(index / shard_samples, fault);
    if (!shard) return fault;
    if (fault = shard->row(index % shard_samples, row); !fault.ok()) return fault;
    out.width = row.width;
    out.height = row.height;
    out.labels.resize(row.label_offset[1] - row.label_offset[0]);
    return shard->arrays().read(ShardArray::kLabel, row.label_offset[0], out.labels.size(),
                                out.labels.data());
  }

  SampleFault read(uint64_t index, SampleData& out, bool check) {
    std::shared_ptr<const OpenShard> shard;
    SampleRow row;
    if (auto fault = read_row(index, shard, row, out); !fault.ok()) return fault;
    out.bytes.resize(row.offset[1] - row.offset[0]);
    auto fault =
        shard->arrays().read(ShardArray::kData, row.offset[0], out.bytes.size(), out.bytes.data());
    if (!fault.ok()) return fault;
    if (check && sample_crc32c(index, out.labels, out.bytes) != row.crc32c)
      return {"CRC32C does not match"};
    return {};
  }

  // False whenever the map does not show a sound sample: what is wrong is then for read() to say.
  bool view_mapped(uint64_t index, SampleView& out) {
    std::shared_ptr<const OpenShard> shard;
    SampleRow row;
    if (!read_row(index, shard, row, out.data).ok()) return false;
    const uint64_t size = row.offset[1] - row.offset[0];
    const uint8_t* bytes = shard->arrays().mapped(row.offset[0], size);
    if (bytes == nullptr) return false;
    if (sample_crc32c(index, out.data.labels, {bytes, size}) != row.crc32c) {
      shard->arrays().is_doubtful();  // a shard that changed is opened anew for the next sample
      return false;
    }
    out.bytes = {bytes, size};
    out.held = std::move(shard);
    return true;
  }

  void will_need(uint64_t index) {
    try {
      SampleFault fault;
      const auto shard = shard_of(index / shard_samples, fault);
      SampleRow row;
      if (!shard || !shard->row(index % shard_samples, row).ok()) return;
      shard->arrays().will_need(row.offset[0], row.offset[1] - row.offset[0]);
    } catch (const Error&) {
      // A hint has no one to report to: the read of this sample will say it.
    }
  }
};

ShardDataset::ShardDataset(const fs::path& directory, const std::string& split,
                           const ReadOptions& how)
    : impl_(std::make_unique<Impl>(directory, split, how)) {}
ShardDataset::~ShardDataset() = default;

uint64_t ShardDataset::size() const { return impl_->samples; }
const std::vector<std::string>& ShardDataset::class_names() const { return impl_->class_names; }
std::string ShardDataset::fingerprint() const { return impl_->fingerprint; }
uint64_t ShardDataset::shard_samples() const { return impl_->shard_samples; }

SampleFault ShardDataset::read(uint64_t index, SampleData& out) const {
  NF_CHECK(index < size());
  return impl_->read(index, out, true);
}

SampleFault ShardDataset::view(uint64_t index, SampleView& out) const {
  NF_CHECK(index < size());
  out.release();
  if (impl_->how.mapped && impl_->view_mapped(index, out)) return {};
  return view_copy(index, out);
}

SampleFault ShardDataset::view_copy(uint64_t index, SampleView& out) const {
  out.release();
  SampleFault fault = read(index, out.data);
  out.bytes = out.data.bytes;
  return fault;
}

bool ShardDataset::is_doubtful(const SampleView& view) const {
  return view.held != nullptr && view.held->arrays().is_doubtful();
}

SampleFault ShardDataset::read_unchecked(uint64_t index, SampleData& out) const {
  NF_CHECK(index < size());
  return impl_->read(index, out, false);
}

void ShardDataset::will_need(uint64_t index) const {
  NF_CHECK(index < size());
  impl_->will_need(index);
}

}  // namespace nf::data

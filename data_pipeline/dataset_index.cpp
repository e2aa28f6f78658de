// See dataset_index.h.
#include "data_pipeline/dataset_index.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <initializer_list>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/jsonl.h"
#include "data_pipeline/json_scanner.h"

namespace nf::data {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFormat = "nf-dataset";
constexpr const char* kRestore =
    "restore the file from a copy, or pack the data set again with nf-pack";

// Which of an object's members were there; each may be given once.
class Members {
 public:
  explicit Members(std::string where) : where_(std::move(where)) {}
  void saw(std::string_view key) { seen_.emplace_back(key); }
  void require(std::initializer_list<std::string_view> keys) const {
    for (const auto key : keys) {
      const auto times = std::count(seen_.begin(), seen_.end(), key);
      if (times != 1)
        throw std::runtime_error(where_ + ": \"" + std::string(key) +
                                 (times == 0 ? "\" is missing" : "\" stands twice"));
    }
  }

 private:
  std::string where_;
  std::vector<std::string> seen_;
};

ShardEntry parse_shard(JsonScanner& json) {
  ShardEntry shard;
  unsigned seen = 0;
  std::string storage;
  const auto once = [&](unsigned bit) {
    if ((seen & bit) != 0) throw std::runtime_error("a shard's key stands twice");
    seen |= bit;
  };
  json.object([&](std::string_view key) {
    if (key == "file") {
      once(1);
      shard.file = json.string_view(storage);
    } else if (key == "samples") {
      once(2);
      shard.samples = json.unsigned_number();
    } else if (key == "bytes") {
      once(4);
      shard.bytes = json.unsigned_number();
    } else if (key == "sha256") {
      once(8);
      shard.sha256 = json.string_view(storage);
    } else {
      json.skip_value();
    }
  });
  if (seen != 15) throw std::runtime_error("a shard without file, samples, bytes or sha256");
  if (shard.file.find('/') != std::string::npos)
    throw std::runtime_error("shard name with a slash: " + shard.file);
  return shard;
}

void check_split(const SplitEntry& split) {
  if (split.shard_samples == 0)
    throw std::runtime_error("split " + split.name + ": shard_samples is 0");
  uint64_t samples = 0;
  for (const ShardEntry& shard : split.shards) {
    // Samples are found by division: every shard but the last is full.
    if (samples % split.shard_samples != 0)
      throw std::runtime_error("split " + split.name + ": a shard before the last is not full");
    if (shard.samples == 0 || shard.samples > split.shard_samples)
      throw std::runtime_error("split " + split.name + ": a shard of an impossible size");
    samples += shard.samples;
  }
  if (samples != split.samples || samples == 0)
    throw std::runtime_error("split " + split.name + ": its shards do not add up to its samples");
}

SplitEntry parse_split(const std::string& name, JsonScanner& json) {
  SplitEntry split;
  split.name = name;
  Members members("split " + name);
  json.object([&](std::string_view key) {
    members.saw(key);
    if (key == "samples") {
      split.samples = json.unsigned_number();
    } else if (key == "shard_samples") {
      split.shard_samples = json.unsigned_number();
    } else if (key == "bytes") {
      split.bytes = json.unsigned_number();
    } else if (key == "rejected") {
      split.rejected = json.unsigned_number();
    } else if (key == "multi_label") {
      split.multi_label = json.boolean();
    } else if (key == "fingerprint") {
      split.fingerprint = json.string();
    } else if (key == "source") {
      split.source = json.string();
    } else if (key == "shards") {
      json.array([&] { split.shards.push_back(parse_shard(json)); });
    } else {
      json.skip_value();
    }
  });
  members.require({"samples", "shard_samples", "bytes", "rejected", "multi_label", "fingerprint",
                   "source", "shards"});
  check_split(split);
  return split;
}

void check_version(const fs::path& file, const std::string& format, uint64_t version) {
  if (format != kFormat)
    throw Error(ExitCode::kData, file.string(), "not a data set's table of contents", kRestore);
  if (version != kDatasetVersion) {
    throw Error(ExitCode::kData, file.string(),
                "format version " + std::to_string(version) + ", this program reads version " +
                    std::to_string(kDatasetVersion),
                "pack the data set again with this version of nf-pack");
  }
}

// Format and version decide before anything else is looked at, wherever they stand.
DatasetIndex parse_index(const fs::path& file, std::string_view text) {
  DatasetIndex index;
  std::string format;
  uint64_t version = 0;
  Members members("the table of contents");
  JsonScanner head(text);
  head.object([&](std::string_view key) {
    members.saw(key);
    if (key == "format") {
      format = head.string();
    } else if (key == "version") {
      version = head.unsigned_number();
    } else if (key == "classes") {
      head.array([&] { index.class_names.push_back(head.string()); });
    } else if (key == "splits") {
      if (!format.empty() && version != 0) check_version(file, format, version);
      head.object([&](std::string_view name) {
        if (index.find(std::string(name)) != nullptr)
          throw std::runtime_error("split " + std::string(name) + " stands twice");
        index.splits.push_back(parse_split(std::string(name), head));
      });
    } else {
      head.skip_value();
    }
  });
  head.finish();
  members.require({"format", "version"});
  check_version(file, format, version);
  members.require({"classes", "splits"});
  return index;
}

// A file as memory. dataset.json is replaced by rename only, so it cannot shrink meanwhile.
class MappedText {
 public:
  explicit MappedText(const fs::path& file) {
    const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) throw_io_error(file, "cannot open", errno);
    struct stat status {};
    if (::fstat(fd, &status) == 0 && status.st_size > 0) {
      size_ = static_cast<size_t>(status.st_size);
      data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    }
    const int error = errno;
    ::close(fd);
    if (data_ == MAP_FAILED) throw_io_error(file, "cannot read", error);
  }
  ~MappedText() {
    if (data_ != nullptr) ::munmap(data_, size_);
  }
  MappedText(const MappedText&) = delete;
  MappedText& operator=(const MappedText&) = delete;
  std::string_view text() const { return {static_cast<const char*>(data_), size_}; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

Json to_json(const SplitEntry& split) {
  Json json = {{"samples", split.samples},
               {"shard_samples", split.shard_samples},
               {"bytes", split.bytes},
               {"rejected", split.rejected},
               {"multi_label", split.multi_label},
               {"fingerprint", split.fingerprint},
               {"source", split.source},
               {"shards", Json::array()}};
  for (const auto& shard : split.shards) {
    json["shards"].push_back({{"file", shard.file},
                              {"samples", shard.samples},
                              {"bytes", shard.bytes},
                              {"sha256", shard.sha256}});
  }
  return json;
}

}  // namespace

const SplitEntry* DatasetIndex::find(const std::string& split) const {
  const auto it = std::find_if(splits.begin(), splits.end(),
                               [&](const SplitEntry& s) { return s.name == split; });
  return it == splits.end() ? nullptr : &*it;
}

bool has_dataset_index(const fs::path& directory) { return fs::exists(directory / kDatasetFile); }

DatasetIndex read_dataset_index(const fs::path& directory) {
  if (!fs::is_directory(directory)) {
    throw Error(ExitCode::kData, directory.string(), "data set folder does not exist",
                "check the path; nf-pack makes data sets from images");
  }
  const fs::path file = directory / kDatasetFile;
  if (!fs::exists(file)) {
    throw Error(ExitCode::kData, directory.string(),
                std::string("not a data set: no ") + kDatasetFile,
                "a pack that was interrupted is finished by running nf-pack again");
  }
  try {
    const MappedText mapped(file);
    return parse_index(file, mapped.text());
  } catch (const Error&) {
    throw;
  } catch (const JsonSyntax& e) {
    throw Error(ExitCode::kData, file.string(), std::string("not valid JSON: ") + e.what(),
                kRestore);
  } catch (const std::exception& e) {
    throw Error(ExitCode::kData, file.string(), std::string("damaged: ") + e.what(), kRestore);
  }
}

void write_dataset_index(const fs::path& directory, const DatasetIndex& index) {
  Json json = {{"format", kFormat},
               {"version", kDatasetVersion},
               {"classes", index.class_names},
               {"splits", Json::object()}};
  std::vector<SplitEntry> sorted = index.splits;
  std::sort(sorted.begin(), sorted.end(),
            [](const SplitEntry& a, const SplitEntry& b) { return a.name < b.name; });
  for (const auto& split : sorted) json["splits"][split.name] = to_json(split);
  write_file_atomic(directory / kDatasetFile, json.dump(1) + "\n");
}

std::vector<std::string> verify_shards(const fs::path& directory, const std::string& split) {
  const DatasetIndex index = read_dataset_index(directory);
  if (!split.empty() && index.find(split) == nullptr) {
    throw Error(ExitCode::kData, directory.string(), "no split \"" + split + "\"");
  }
  std::vector<std::string> problems;
  for (const auto& entry : index.splits) {
    if (!split.empty() && entry.name != split) continue;
    for (const auto& shard : entry.shards) {
      const fs::path file = directory / shard.file;
      std::error_code ec;
      const uint64_t bytes = fs::file_size(file, ec);
      if (ec) {
        problems.push_back(shard.file + ": missing");
      } else if (bytes != shard.bytes) {
        problems.push_back(shard.file + ": " + std::to_string(bytes) + " bytes, " + kDatasetFile +
                           " says " + std::to_string(shard.bytes));
      } else if (sha256_file(file) != shard.sha256) {
        problems.push_back(shard.file + ": SHA-256 differs from " + kDatasetFile);
      }
    }
  }
  return problems;
}

}  // namespace nf::data

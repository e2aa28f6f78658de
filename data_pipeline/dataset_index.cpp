// See dataset_index.h.
#include "data_pipeline/dataset_index.h"

#include <algorithm>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/jsonl.h"

namespace nf::data {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFormat = "nf-dataset";

ShardEntry parse_shard(const Json& json) {
  ShardEntry shard;
  shard.file = json.at("file").get<std::string>();
  shard.samples = json.at("samples").get<uint64_t>();
  shard.bytes = json.at("bytes").get<uint64_t>();
  shard.sha256 = json.at("sha256").get<std::string>();
  if (shard.file.find('/') != std::string::npos)
    throw std::runtime_error("shard name with a slash: " + shard.file);
  return shard;
}

SplitEntry parse_split(const std::string& name, const Json& json) {
  SplitEntry split;
  split.name = name;
  split.samples = json.at("samples").get<uint64_t>();
  split.shard_samples = json.at("shard_samples").get<uint64_t>();
  split.bytes = json.at("bytes").get<uint64_t>();
  split.rejected = json.at("rejected").get<uint64_t>();
  split.multi_label = json.at("multi_label").get<bool>();
  split.fingerprint = json.at("fingerprint").get<std::string>();
  split.source = json.at("source").get<std::string>();
  if (split.shard_samples == 0) throw std::runtime_error("split " + name + ": shard_samples is 0");
  uint64_t samples = 0;
  for (const auto& entry : json.at("shards")) {
    split.shards.push_back(parse_shard(entry));
    // Samples are found by division: every shard but the last is full.
    if (samples % split.shard_samples != 0)
      throw std::runtime_error("split " + name + ": a shard before the last is not full");
    samples += split.shards.back().samples;
  }
  if (samples != split.samples || samples == 0) {
    throw std::runtime_error("split " + name + ": its shards do not add up to its samples");
  }
  return split;
}

DatasetIndex parse_index(const Json& json) {
  DatasetIndex index;
  index.class_names = json.at("classes").get<std::vector<std::string>>();
  for (const auto& [name, split] : json.at("splits").items())
    index.splits.push_back(parse_split(name, split));
  return index;
}

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

[[noreturn]] void damaged(const fs::path& file, const std::string& what) {
  throw Error(ExitCode::kData, file.string(), what,
              "restore the file from a copy, or pack the data set again with nf-pack");
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
  const Json json = Json::parse(read_file(file), nullptr, false);
  if (json.is_discarded() || !json.is_object()) damaged(file, "not valid JSON");
  try {
    if (json.at("format").get<std::string>() != kFormat)
      damaged(file, "not a data set's table of contents");
    if (const int version = json.at("version").get<int>(); version != kDatasetVersion) {
      throw Error(ExitCode::kData, file.string(),
                  "format version " + std::to_string(version) + ", this program reads version " +
                      std::to_string(kDatasetVersion),
                  "pack the data set again with this version of nf-pack");
    }
    return parse_index(json);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    damaged(file, std::string("damaged: ") + e.what());
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

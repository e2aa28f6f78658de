// See checkpoint.h. Saving and loading of one checkpoint; the folder around it is
// checkpoint_directory.cpp.
#include "trainer/checkpoint/checkpoint.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "core/atomic_file.h"
#include "core/check.h"
#include "core/error.h"
#include "core/hash.h"
#include "trainer/checkpoint/checkpoint_names.h"
#include "trainer/checkpoint/manifest.h"

namespace nf::train {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;
constexpr const char* kOther = "use another checkpoint";

std::string print_state(const TrainState& s) {
  Json json = {{"step", s.step},
               {"position", s.position},
               {"seed", s.seed},
               {"fingerprint", s.fingerprint},
               {"config_hash", s.config_hash}};
  json["extra"] = s.extra;
  return json.dump(2) + "\n";
}

TrainState parse_state(const fs::path& file, const std::string& text) {
  try {
    const Json json = Json::parse(text);
    TrainState s;
    s.step = json.at("step").get<uint64_t>();
    s.position = json.at("position").get<uint64_t>();
    s.seed = json.at("seed").get<uint64_t>();
    s.fingerprint = json.at("fingerprint").get<std::string>();
    s.config_hash = json.at("config_hash").get<std::string>();
    s.extra = json.at("extra");
    return s;
  } catch (const nlohmann::json::exception& e) {
    throw Error(ExitCode::kWeights, file.string(),
                std::string("the state does not parse: ") + e.what(), kOther);
  }
}

ManifestEntry write_text(const fs::path& directory, const char* name, const std::string& text) {
  OutputFile out(directory / name);
  out.write(text.data(), text.size());
  out.finish();
  return {name, {text.size(), xxh3_64(as_bytes(text))}};
}

void write_files(const fs::path& directory, const Snapshot& snapshot) {
  Manifest manifest{.step = snapshot.state.step, .files = {}};
  const auto tensors = [&](const char* name, const std::vector<NamedTensor>& list,
                           const Metadata& metadata) {
    manifest.files.push_back({name, write_tensors(directory / name, list, metadata)});
  };
  tensors(kModelName, snapshot.model, snapshot.model_metadata);
  tensors(kOptimizerName, snapshot.optimizer, {});
  if (!snapshot.ema.empty()) tensors(kEmaName, snapshot.ema, snapshot.model_metadata);
  manifest.files.push_back(write_text(directory, kStateName, print_state(snapshot.state)));
  fsync_directory(directory);
  write_text(directory, kManifestName, print_manifest(manifest));
  fsync_directory(directory);
}

// Puts `temporary` in the place of `final`, which may exist: then both names are exchanged in one
// system call, or, where the file system cannot, moved one after the other. Afterwards `temporary`
// may hold what was replaced.
void publish(const fs::path& temporary, const fs::path& final_path) {
  if (fs::exists(final_path)) {
    if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, final_path.c_str(), RENAME_EXCHANGE) ==
        0) {
      fsync_directory(final_path.parent_path());
      return;
    }
    if (errno != EINVAL && errno != ENOSYS)
      throw_io_error(final_path, "cannot exchange checkpoints", errno);
    const fs::path old = temporary.string() + ".old";
    fs::remove_all(old);
    rename_durable(final_path, old);
    rename_durable(temporary, final_path);
    fs::remove_all(old);
    return;
  }
  rename_durable(temporary, final_path);
}

[[noreturn]] void rethrow_with_hint(const fs::path& directory) {
  const std::string hint =
      "older checkpoints are untouched: free space or mend the disk, then run the same command "
      "again";
  try {
    throw;
  } catch (const Error& e) {
    throw Error(e.code(), e.where(), e.what(), hint);
  } catch (const fs::filesystem_error& e) {
    throw Error(ExitCode::kOther, directory.string(), e.code().message(), hint);
  }
}

// One tensor file of a checkpoint, used only when its bytes are those of the manifest.
LoadedTensors load_tensors(const fs::path& directory, const ManifestEntry& entry) {
  LoadedTensors loaded = read_tensors(directory / entry.name);
  if (loaded.digest.xxh3 != entry.digest.xxh3)
    throw Error(ExitCode::kWeights, (directory / entry.name).string(),
                "damaged: XXH3 is " + to_hex(loaded.digest.xxh3) + ", the manifest says " +
                    to_hex(entry.digest.xxh3),
                kOther);
  return loaded;
}

TrainState load_state(const fs::path& directory, const ManifestEntry& entry) {
  const fs::path file = directory / kStateName;
  const std::string text = read_file(file);
  if (xxh3_64(as_bytes(text)) != entry.digest.xxh3)
    throw Error(ExitCode::kWeights, file.string(), "damaged: XXH3 differs from the manifest",
                kOther);
  return parse_state(file, text);
}

// Cheap checks of all files before any is read.
void check_sizes(const fs::path& directory, const Manifest& manifest) {
  for (const char* name : {kModelName, kOptimizerName, kStateName})
    if (manifest.find(name) == nullptr)
      throw Error(ExitCode::kWeights, (directory / kManifestName).string(),
                  std::string("the manifest does not list ") + name, kOther);
  for (const ManifestEntry& e : manifest.files) {
    std::error_code error;
    const uint64_t bytes = fs::file_size(directory / e.name, error);
    if (error)
      throw Error(ExitCode::kWeights, (directory / e.name).string(),
                  "incomplete checkpoint: " + error.message(), kOther);
    if (bytes != e.digest.bytes)
      throw Error(ExitCode::kWeights, (directory / e.name).string(),
                  "damaged: it has " + std::to_string(bytes) + " bytes, the manifest says " +
                      std::to_string(e.digest.bytes),
                  kOther);
  }
}

}  // namespace

void save_checkpoint(const fs::path& checkpoints_dir, const Snapshot& snapshot) {
  const fs::path final_path = checkpoint_path(checkpoints_dir, snapshot.state.step);
  const fs::path temporary = checkpoints_dir / (kTemporaryPrefix + final_path.filename().string() +
                                                "." + std::to_string(::getpid()));
  std::error_code ignored;
  try {
    fs::create_directories(checkpoints_dir);
    fs::remove_all(temporary);
    fs::create_directory(temporary);
    write_files(temporary, snapshot);
    publish(temporary, final_path);
    fs::remove_all(temporary, ignored);  // the replaced checkpoint, if there was one
    write_file_atomic(checkpoints_dir / kLatestName, final_path.filename().string() + "\n");
  } catch (...) {
    fs::remove_all(temporary, ignored);
    rethrow_with_hint(checkpoints_dir);
  }
}

fs::path follow_latest(const fs::path& path) {
  if ((path.filename() != kLatestName && path.filename() != kBestName) ||
      !fs::is_regular_file(path))
    return path;
  std::string name = read_file(path);
  while (!name.empty() && name.back() == '\n') name.pop_back();
  return step_of_name(name) ? path.parent_path() / name : path;
}

Loaded load_checkpoint(const fs::path& given) {
  const fs::path directory = follow_latest(given);
  Loaded out;
  out.directory = directory;
  try {
    const Manifest manifest = read_manifest(directory);
    check_sizes(directory, manifest);
    Snapshot& s = out.snapshot;
    s.state = load_state(directory, *manifest.find(kStateName));
    const auto step = step_of_name(directory.filename().string());
    if (s.state.step != manifest.step || (step && *step != manifest.step))
      throw Error(ExitCode::kWeights, directory.string(),
                  "directory, manifest and state disagree about the step", kOther);
    LoadedTensors model = load_tensors(directory, *manifest.find(kModelName));
    s.model = std::move(model.tensors);
    s.model_metadata = std::move(model.metadata);
    s.optimizer = load_tensors(directory, *manifest.find(kOptimizerName)).tensors;
    if (const ManifestEntry* ema = manifest.find(kEmaName))
      s.ema = load_tensors(directory, *ema).tensors;
  } catch (const Error& e) {  // a file that cannot be read is a checkpoint that cannot be used
    throw Error(ExitCode::kWeights, e.where(), e.what(), kOther);
  }
  return out;
}

std::optional<Loaded> load_latest(const fs::path& checkpoints_dir,
                                  std::vector<std::string>* warnings) {
  std::vector<std::string> passed_over;
  std::string first_damage;
  std::optional<Loaded> loaded;
  const std::vector<CheckpointEntry> entries = step_directories(checkpoints_dir);
  for (auto entry = entries.rbegin(); entry != entries.rend() && !loaded; ++entry) {
    std::error_code ignored;
    if (!fs::exists(entry->directory / kManifestName, ignored)) {
      passed_over.push_back(entry->directory.string() + ": ignored, it has no " + kManifestName);
      continue;
    }
    try {
      loaded = load_checkpoint(entry->directory);
    } catch (const Error& e) {
      passed_over.push_back(e.where() + ": " + e.what() +
                            "; falling back to the checkpoint before");
      if (first_damage.empty()) first_damage = e.where() + ": " + e.what();
    }
  }
  if (warnings != nullptr)
    warnings->insert(warnings->end(), passed_over.begin(), passed_over.end());
  if (!loaded && !first_damage.empty())
    throw Error(ExitCode::kWeights, checkpoints_dir.string(),
                "no checkpoint can be used; the newest: " + first_damage,
                "start again with another output directory, or name a good checkpoint with "
                "--resume");
  if (loaded) loaded->warnings = std::move(passed_over);
  return loaded;
}

}  // namespace nf::train

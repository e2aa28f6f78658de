// The folder of checkpoints as a whole (see checkpoint.h): names, listing, removal and sweeping.
#include <algorithm>
#include <system_error>

#include "core/atomic_file.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_names.h"
#include "trainer/checkpoint/manifest.h"

namespace nf::train {
namespace fs = std::filesystem;
namespace {

// What lies in the folder, in no particular order; nothing when there is no such folder.
std::vector<fs::directory_entry> entries_in(const fs::path& directory) {
  std::error_code error;
  if (!fs::is_directory(directory, error)) return {};
  const fs::directory_iterator first(directory, error);
  if (error) throw_io_error(directory, "cannot list", error.value());
  return {fs::begin(first), fs::end(first)};
}

void remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) throw_io_error(path, "cannot remove", error.value());
}

}  // namespace

std::string step_name(uint64_t step) {
  std::string digits = std::to_string(step);
  if (digits.size() < 9) digits.insert(0, 9 - digits.size(), '0');
  return "step_" + digits;
}

std::optional<uint64_t> step_of_name(const std::string& name) {
  if (!name.starts_with("step_")) return std::nullopt;
  uint64_t step = 0;
  for (const char c : name.substr(5)) {
    if (c < '0' || c > '9' || __builtin_mul_overflow(step, uint64_t{10}, &step) ||
        __builtin_add_overflow(step, static_cast<uint64_t>(c - '0'), &step))
      return std::nullopt;
  }
  if (step_name(step) != name) return std::nullopt;
  return step;
}

fs::path checkpoint_path(const fs::path& checkpoints_dir, uint64_t step) {
  return checkpoints_dir / step_name(step);
}

std::vector<CheckpointEntry> step_directories(const fs::path& checkpoints_dir) {
  std::vector<CheckpointEntry> out;
  for (const fs::directory_entry& entry : entries_in(checkpoints_dir)) {
    const auto step = step_of_name(entry.path().filename().string());
    std::error_code ignored;
    if (step && entry.is_directory(ignored)) out.push_back({*step, entry.path()});
  }
  std::sort(out.begin(), out.end(),
            [](const CheckpointEntry& a, const CheckpointEntry& b) { return a.step < b.step; });
  return out;
}

std::vector<CheckpointEntry> list_checkpoints(const fs::path& checkpoints_dir) {
  std::vector<CheckpointEntry> out = step_directories(checkpoints_dir);
  std::erase_if(out, [](const CheckpointEntry& e) {
    std::error_code ignored;
    return !fs::is_regular_file(e.directory / kManifestName, ignored);
  });
  return out;
}

void remove_old_checkpoints(const fs::path& checkpoints_dir, int keep, uint64_t newest_step,
                            const std::set<uint64_t>& pinned) {
  if (keep <= 0) return;
  std::vector<CheckpointEntry> entries = list_checkpoints(checkpoints_dir);
  std::erase_if(entries, [&](const CheckpointEntry& e) { return e.step > newest_step; });
  const size_t kept = std::min(entries.size(), static_cast<size_t>(keep));
  for (size_t i = 0; i < entries.size() - kept; ++i) {
    if (pinned.contains(entries[i].step)) continue;
    // First out of sight under one rename: a kill inside remove_all leaves only a temporary name.
    const fs::path doomed =
        checkpoints_dir / (kTemporaryPrefix + step_name(entries[i].step) + ".old");
    remove_tree(doomed);
    rename_durable(entries[i].directory, doomed);
    remove_tree(doomed);
  }
}

void sweep_temporary(const fs::path& checkpoints_dir) {
  for (const fs::directory_entry& entry : entries_in(checkpoints_dir)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kTemporaryPrefix) || name.starts_with(std::string(kLatestName) + ".tmp."))
      remove_tree(entry.path());
  }
}

}  // namespace nf::train

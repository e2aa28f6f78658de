// Checkpoints that are either whole or absent, whatever kills the process: written into a temporary
// directory, every file fsynced, manifest last, renamed into place. Files are split by tensor,
// never by rank, and hold nothing that depends on time, host, world size or number of restarts, so
// equal states give equal bytes. Only one process (rank 0) writes a directory. save_checkpoint may
// run on a background thread: it touches only the Snapshot it is given.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "trainer/checkpoint/named_tensors.h"

namespace nf::train {

// What a run is besides its tensors. The only data state is `position`.
struct TrainState {
  uint64_t step = 0;      // updates done
  uint64_t position = 0;  // samples whose gradients are in the weights
  uint64_t seed = 0;
  std::string fingerprint{};  // of the data set
  std::string config_hash{};
  nlohmann::ordered_json extra =
      nlohmann::ordered_json::object();  // of the caller; pure functions of the run only
  bool operator==(const TrainState&) const = default;
};

struct Snapshot {
  TrainState state{};
  std::vector<NamedTensor> model{};
  std::vector<NamedTensor> optimizer{};
  std::vector<NamedTensor> ema{};  // empty: no ema.safetensors
  Metadata
      model_metadata;  // model name, flavour, classes, image size: header of model and ema file
};

// checkpoints_dir/step_000000123
std::filesystem::path checkpoint_path(const std::filesystem::path& checkpoints_dir, uint64_t step);

// Commits the snapshot as checkpoint_path(dir, state.step), replacing one of the same step in one
// atomic exchange, and then moves the pointer file `latest`. Creates the directory. Throws
// Error(kOther) with path and hint when the disk refuses: the temporary directory is removed and
// older checkpoints are untouched.
void save_checkpoint(const std::filesystem::path& checkpoints_dir, const Snapshot& snapshot);

struct Loaded {
  std::filesystem::path directory;
  Snapshot snapshot;
  std::vector<std::string> warnings;  // why newer checkpoints were passed over
};

// The newest complete and verified checkpoint. Damaged newer ones are passed over with a warning
// that names file and reason; a directory without manifest does not exist. None: nullopt. All
// damaged: Error(kWeights). `latest` is only a hint for people: a crash between commit and pointer
// loses nothing. `warnings`, if given, gets the warnings also in the case of nullopt.
std::optional<Loaded> load_latest(const std::filesystem::path& checkpoints_dir,
                                  std::vector<std::string>* warnings = nullptr);

// One checkpoint, every byte verified against the manifest before any tensor is used. Throws
// Error(kWeights).
Loaded load_checkpoint(const std::filesystem::path& directory);

// The checkpoint that a pointer file (`latest`, `best`) names; any other path as it is.
std::filesystem::path follow_latest(const std::filesystem::path& path);

struct CheckpointEntry {
  uint64_t step = 0;
  std::filesystem::path directory;
};
// Directories with a manifest, by ascending step, unverified. A missing checkpoints_dir has none.
std::vector<CheckpointEntry> list_checkpoints(const std::filesystem::path& checkpoints_dir);

// Removes all but the `keep` newest checkpoints with step <= newest_step (the one just saved;
// directories beyond it, damaged ones that were passed over, do not count and stay). keep <= 0
// keeps all; `pinned` steps always stay. A kill on the way never leaves a half-removed checkpoint
// under its name.
void remove_old_checkpoints(const std::filesystem::path& checkpoints_dir, int keep,
                            uint64_t newest_step, const std::set<uint64_t>& pinned = {});

// Removes what killed saves left behind. Only for the one process that owns the directory, before
// its first save.
void sweep_temporary(const std::filesystem::path& checkpoints_dir);

}  // namespace nf::train

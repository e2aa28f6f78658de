// Names inside a folder of checkpoints, shared by saving, loading and sweeping.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "trainer/checkpoint/checkpoint.h"

namespace nf::train {

inline constexpr const char* kLatestName = "latest";
inline constexpr const char* kBestName = "best";
inline constexpr const char* kStateName = "state.json";
inline constexpr const char* kModelName = "model.safetensors";
inline constexpr const char* kOptimizerName = "optimizer.safetensors";
inline constexpr const char* kEmaName = "ema.safetensors";
// What starts with this is never a checkpoint and may be swept.
inline const std::string kTemporaryPrefix = ".tmp.";

std::string step_name(uint64_t step);  // step_000000123
std::optional<uint64_t> step_of_name(const std::string& name);

// All step_* directories by ascending step, with or without manifest.
std::vector<CheckpointEntry> step_directories(const std::filesystem::path& checkpoints_dir);

}  // namespace nf::train

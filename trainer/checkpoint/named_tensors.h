// The torch side of tensor_file.h: lists of named CPU tensors to and from safetensors files.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <string>
#include <vector>

#include "trainer/checkpoint/tensor_file.h"

namespace nf::train {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;  // CPU, contiguous
};

// See write_tensor_file. Names must differ; tensors must be contiguous and on the CPU.
FileDigest write_tensors(const std::filesystem::path& file, const std::vector<NamedTensor>& tensors,
                         const Metadata& metadata);

struct LoadedTensors {
  std::vector<NamedTensor> tensors;  // own memory, in the order of the file
  Metadata metadata;
  FileDigest digest;
};
// See read_tensor_file: Error(kWeights) for a damaged file.
LoadedTensors read_tensors(const std::filesystem::path& file);

}  // namespace nf::train

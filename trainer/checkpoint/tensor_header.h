// The JSON header of a safetensors file, apart from file access: text to checked table and back.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/checkpoint/tensor_file.h"

namespace nf::train {

// Parses and checks a header. data_bytes: what follows it in the file; the tensors must fill it
// without gap or overlap. `file` is for messages. Throws Error(kWeights).
TensorFileInfo parse_tensor_header(const std::filesystem::path& file, std::string_view header,
                                   uint64_t data_bytes);

// The header's text, padded with spaces to a multiple of 8 bytes.
std::string print_tensor_header(const std::vector<TensorInfo>& tensors, const Metadata& metadata);

// Bytes of a tensor; NF_CHECK on overflow or a negative extent.
uint64_t tensor_bytes(Dtype dtype, const std::vector<int64_t>& shape);

}  // namespace nf::train

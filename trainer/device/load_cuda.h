// Loads the CUDA plug-in when run.device asks for it. Loading it also loads LibTorch's CUDA half,
// which registers the CUDA backend; so this must come before the first device query.
#pragma once

#include <filesystem>

#include "trainer/device/cuda_plugin.h"

namespace nf::train {

// Where a program finds its plug-in: ../lib/libnf_cuda.so beside the folder of the executable.
std::filesystem::path cuda_plugin_path(const std::filesystem::path& executable);

// Throws Error(kUsage) at run.device when the library is missing, cannot be loaded or is of another
// version. Stays loaded to the end of the process; a second call gives the same table.
const CudaPlugin& load_cuda_plugin(const std::filesystem::path& library);

}  // namespace nf::train

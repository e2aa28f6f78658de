// A plug-in without CUDA, for load_cuda_test: the right entry point, the version that the build
// gives it.
#include "trainer/device/cuda_plugin.h"

namespace {

constexpr nf::train::CudaPlugin kPlugin{.version = NF_FAKE_VERSION,
                                        .device_count = [] { return 3; },
                                        .make_communicator = nullptr,
                                        .make_buffer_ops = nullptr,
                                        .fused_update = nullptr};

}  // namespace

extern "C" const nf::train::CudaPlugin* NF_FAKE_ENTRY() { return &kPlugin; }

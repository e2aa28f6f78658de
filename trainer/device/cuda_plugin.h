// The door between the programs and libnf_cuda, the one library that needs CUDA: a table of
// functions, found by name after loading. No CUDA types here, so this compiles everywhere. Programs
// and plug-in come from one build of one source tree; the version guards against a forgotten old
// library.
#pragma once

#include <memory>

#include "trainer/comm/buffer_ops.h"
#include "trainer/comm/communicator.h"

namespace nf::train {

struct FusedUpdate;  // trainer/optim/cuda/fused_update.h

inline constexpr int kCudaPluginVersion = 3;
inline constexpr const char* kCudaPluginEntry = "nf_cuda_plugin_v1";

struct CudaPlugin {
  int version;

  // GPUs that this process may use; 0 without a driver.
  int (*device_count)();

  // NCCL over the ranks of `host`, which it uses for everything small and which must outlive it.
  // Device pointers travel GPU to GPU, host pointers through `host`. Collective. Throws
  // Error(kRank).
  std::unique_ptr<Communicator> (*make_communicator)(Communicator& host, int device,
                                                     double timeout_seconds);

  // Gradient buffers in the device's memory, added on LibTorch's current stream. copy() takes host
  // pointers too. Throws Error(kOther) when the memory is full.
  std::unique_ptr<BufferOps> (*make_buffer_ops)(int device);

  // The optimizer's whole update; see trainer/optim/cuda/fused_update.h. The kernels of the fused
  // operators need no entry: loading the plug-in registers them with LibTorch's dispatcher.
  void (*fused_update)(const FusedUpdate& update, int device);
};

using CudaPluginEntry = const CudaPlugin* (*)();

}  // namespace nf::train

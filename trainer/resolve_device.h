// The device a rank computes on, and what the CUDA plug-in adds to its run. The plug-in is loaded
// only when it may be wanted, before the first device query, so a machine without CUDA needs none
// of it.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <memory>
#include <string>

#include "trainer/comm/buffer_ops.h"
#include "trainer/comm/communicator.h"
#include "trainer/optim/arena_update.h"

namespace nf::train {

// "auto" takes CUDA when plug-in and device are there, else the CPU; local_rank chooses among
// several GPUs, round robin. Throws Error(kUsage) when "cuda" is asked for and not there.
at::Device resolve_device(const std::string& name, int local_rank);

// How gradients travel: with comm.backend "nccl" on a GPU from GPU to GPU, else through host memory
// and `host`.
struct GradientPath {
  std::unique_ptr<Communicator> nccl;  // null: the host communicator
  std::unique_ptr<BufferOps> ops;      // null: host memory
  at::Device device = at::kCPU;        // where gradient buffers live
};
GradientPath make_gradient_path(const std::string& backend, at::Device device, Communicator& host,
                                double timeout_seconds);

// The optimizer's update on a GPU.
FusedUpdateLaunch device_update(at::Device device);

}  // namespace nf::train

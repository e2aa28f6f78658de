// See resolve_device.h.
#include "trainer/resolve_device.h"

#include "core/error.h"
#include "trainer/device/load_cuda.h"

namespace nf::train {
namespace {
namespace fs = std::filesystem;

fs::path plugin_path() { return cuda_plugin_path(fs::read_symlink("/proc/self/exe")); }

}  // namespace

at::Device resolve_device(const std::string& name, int local_rank) {
  if (name == "cpu" || (name == "auto" && !fs::exists(plugin_path()))) return at::kCPU;
  int devices = 0;
  try {
    devices = load_cuda_plugin(plugin_path()).device_count();
  } catch (const Error&) {
    if (name == "cuda") throw;
    return at::kCPU;  // "auto" on a machine without CUDA's libraries
  }
  if (devices > 0) return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(local_rank % devices));
  if (name == "auto") return at::kCPU;
  throw Error(ExitCode::kUsage, "run.device", "no CUDA device is visible",
              "check nvidia-smi, or use run.device = \"cpu\"");
}

GradientPath make_gradient_path(const std::string& backend, at::Device device, Communicator& host,
                                double timeout_seconds) {
  GradientPath path;
  if (backend != "nccl") return path;
  if (!device.is_cuda())
    throw Error(ExitCode::kUsage, "comm.backend", "nccl needs run.device = \"cuda\"",
                "use comm.backend = \"auto\"");
  const CudaPlugin& plugin = load_cuda_plugin(plugin_path());
  path.nccl = plugin.make_communicator(host, device.index(), timeout_seconds);
  path.ops = plugin.make_buffer_ops(device.index());
  path.device = device;
  return path;
}

FusedUpdateLaunch device_update(at::Device device) {
  return [run = load_cuda_plugin(plugin_path()).fused_update, device](const FusedUpdate& update) {
    run(update, device.index());
  };
}

}  // namespace nf::train

// What libnf_cuda offers: the table of trainer/device/cuda_plugin.h, gradient buffers in device
// memory, and the optimizer's update there.
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <vector>

#include "core/error.h"
#include "trainer/comm/nccl.h"
#include "trainer/comm/nccl_tree_add.h"
#include "trainer/device/cuda_plugin.h"
#include "trainer/optim/cuda/kernels.h"

namespace nf::train {
namespace {

cudaStream_t current_stream(int device) {
  return c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)).stream();
}

void check_call(cudaError_t error, int device, const char* action) {
  if (error == cudaSuccess) return;
  throw Error(ExitCode::kOther, "GPU " + std::to_string(device),
              std::string("cannot ") + action + ": " + cudaGetErrorString(error),
              error == cudaErrorMemoryAllocation
                  ? "raise batch.micro_batches, so that each is smaller"
                  : "");
}

class CudaBufferOps final : public BufferOps {
 public:
  explicit CudaBufferOps(int device) : device_(device) {}

  std::shared_ptr<float[]> allocate(size_t elements) override {
    check(cudaSetDevice(device_), "select the device");
    void* memory = nullptr;
    if (elements > 0) check(cudaMalloc(&memory, elements * sizeof(float)), "allocate");
    return {static_cast<float*>(memory), [](float* p) { cudaFree(p); }};
  }

  void copy(float* to, const float* from, size_t elements) override {
    if (elements == 0) return;
    check(cudaMemcpyAsync(to, from, elements * sizeof(float), cudaMemcpyDefault, stream()), "copy");
  }

  bool add(std::span<float* const> operands, std::span<const Addition> order,
           size_t elements) override {
    std::vector<float*> into;
    std::vector<const float*> from;
    for (const Addition& a : order) {
      into.push_back(operands[a.into]);
      from.push_back(operands[a.from]);
    }
    check(tree_add(into.data(), from.data(), order.size(), elements, stream()), "add");
    return false;  // nobody waits for the device to tell
  }

 private:
  cudaStream_t stream() const { return current_stream(device_); }
  void check(cudaError_t error, const char* action) const { check_call(error, device_, action); }

  const int device_;
};

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // no driver or no device: clears the error
    return 0;
  }
  return count;
}

void fused_update(const FusedUpdate& update, int device) {
  check_call(cudaSetDevice(device), device, "select the device");
  check_call(cuda::fused_update(update, current_stream(device)), device, "update the weights");
}

constexpr CudaPlugin kPlugin{
    .version = kCudaPluginVersion,
    .device_count = &device_count,
    .make_communicator = [](Communicator& host, int device,
                            double timeout_seconds) -> std::unique_ptr<Communicator> {
      return std::make_unique<NcclCommunicator>(host, device, timeout_seconds);
    },
    .make_buffer_ops = [](int device) -> std::unique_ptr<BufferOps> {
      return std::make_unique<CudaBufferOps>(device);
    },
    .fused_update = &fused_update};

}  // namespace
}  // namespace nf::train

extern "C" const nf::train::CudaPlugin* nf_cuda_plugin_v1() { return &nf::train::kPlugin; }

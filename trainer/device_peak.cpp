// See device_peak.h.
#include "trainer/device_peak.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>

namespace nf::train {

double peak_flops(at::Device device, double peak_tflops) {
  if (peak_tflops > 0) return peak_tflops * 1e12;
  if (device.is_cuda()) return 989.5e12;  // H100, H200 SXM; other devices: set run.peak_tflops
  return matmul_flops(device, at::kFloat, 768, 5);
}

double matmul_flops(at::Device device, at::ScalarType type, int64_t side, int repeats) {
  // Many different numbers: a GPU's clock falls with the power that changing bits take.
  const at::Tensor a = at::arange(side * side, at::TensorOptions(at::kFloat).device(device))
                           .remainder_(251)
                           .sub_(125)
                           .div_(125)
                           .view({side, side})
                           .to(type);
  const at::Tensor b = a.flip({0}).contiguous();
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    synchronize(device);
    const auto start = std::chrono::steady_clock::now();
    const at::Tensor c = at::mm(a, b);
    synchronize(device);
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  const auto n = static_cast<double>(side);
  return 2.0 * n * n * n / best;
}

void synchronize(at::Device device) {
  if (device.is_cpu()) return;
  c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

}  // namespace nf::train

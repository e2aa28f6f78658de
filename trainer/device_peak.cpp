// See device_peak.h.
#include "trainer/device_peak.h"

#include <algorithm>
#include <chrono>

namespace nf::train {

double peak_flops(at::Device device, double peak_tflops) {
  if (peak_tflops > 0) return peak_tflops * 1e12;
  if (device.is_cuda()) return 989.5e12;  // H100, H200 SXM; other devices: set run.peak_tflops
  constexpr int64_t kSide = 768;
  const at::Tensor a = at::ones({kSide, kSide}), b = at::ones({kSide, kSide});
  double best = 1e30;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const at::Tensor c = at::mm(a, b);
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return 2.0 * kSide * kSide * kSide / best;
}

}  // namespace nf::train

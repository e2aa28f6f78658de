// The fused update of the CUDA plug-in on a host with a GPU, against the update in float64, and the
// same bits twice.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include "tests/trainer/optim/update_case.h"
#include "trainer/device/load_cuda.h"

namespace nf::test {
namespace {

void check(cudaError_t error) { ASSERT_EQ(error, cudaSuccess) << cudaGetErrorString(error); }

// A vector's copy in device memory.
template <class T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& from) : bytes_(from.size() * sizeof(T)) {
    check(cudaMalloc(&data_, std::max<size_t>(bytes_, 16)));
    check(cudaMemcpy(data_, from.data(), bytes_, cudaMemcpyHostToDevice));
  }
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  T* data() const { return static_cast<T*>(data_); }
  void read(std::vector<T>& to) const {
    check(cudaMemcpy(to.data(), data_, bytes_, cudaMemcpyDeviceToHost));
  }

 private:
  size_t bytes_;
  void* data_ = nullptr;
};

train::UpdateTotals on_gpu(UpdateCase& c) {
  static const train::CudaPlugin& plugin =
      train::load_cuda_plugin(train::cuda_plugin_path(program("nf-train")));
  const OnDevice<float> weight(c.weight), grad(c.grad), momentum(c.momentum), average(c.average);
  const OnDevice<train::UpdateUnit> units(c.units);
  const OnDevice<train::UpdateRates> rates({c.rates});
  const OnDevice<train::UpdateUnitState> state(std::vector<train::UpdateUnitState>(c.units.size()));
  const OnDevice<train::UpdateTotals> totals({train::UpdateTotals{}});
  plugin.fused_update({.arenas = {weight.data(), grad.data(), momentum.data(),
                                  c.with_average ? average.data() : nullptr},
                       .units = units.data(),
                       .count = static_cast<int64_t>(c.units.size()),
                       .rates = rates.data(),
                       .state = state.data(),
                       .totals = totals.data()},
                      0);
  check(cudaDeviceSynchronize());
  weight.read(c.weight);
  grad.read(c.grad);
  momentum.read(c.momentum);
  average.read(c.average);
  std::vector<train::UpdateTotals> out(1);
  totals.read(out);
  return out[0];
}

TEST(CudaUpdate, EqualsTheUpdateInFloat64) { check_fused_update(on_gpu); }

TEST(CudaUpdate, SameBitsAgain) {
  UpdateCase a = update_case(), b = update_case();
  on_gpu(a);
  on_gpu(b);
  EXPECT_EQ(a.weight, b.weight);
  EXPECT_EQ(a.momentum, b.momentum);
  EXPECT_EQ(a.average, b.average);
}

}  // namespace
}  // namespace nf::test

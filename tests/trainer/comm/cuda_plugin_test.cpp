// The CUDA plug-in on a host with a GPU: the conformance suite on one rank, device memory through
// NCCL, and the tree sum on the GPU against its host twin, bit for bit.
#include <gtest/gtest.h>

#include "tests/support/paths.h"
#include "tests/trainer/comm/conformance.h"
#include "tests/trainer/comm/oracle.h"
#include "trainer/comm/local.h"
#include "trainer/device/load_cuda.h"

namespace nf::test {
namespace {

class CudaPlugin : public testing::Test {
 protected:
  const train::CudaPlugin& plugin =
      train::load_cuda_plugin(train::cuda_plugin_path(program("nf-train")));
  train::LocalCommunicator host;
  std::unique_ptr<train::BufferOps> ops = plugin.make_buffer_ops(0);

  std::shared_ptr<float[]> to_device(const std::vector<float>& values) {
    auto memory = ops->allocate(values.size());
    ops->copy(memory.get(), values.data(), values.size());
    return memory;
  }
  std::vector<float> to_host(const float* memory, size_t n) {
    std::vector<float> values(n);
    ops->copy(values.data(), memory, n);
    return values;
  }
};

TEST_F(CudaPlugin, FindsADevice) { EXPECT_GE(plugin.device_count(), 1); }

TEST_F(CudaPlugin, Conformance) {
  const auto comm = plugin.make_communicator(host, 0, 60.0);
  EXPECT_EQ(comm->size(), 1);
  check_conformance(*comm, 100);
}

TEST_F(CudaPlugin, DeviceMemoryThroughNccl) {
  const auto comm = plugin.make_communicator(host, 0, 60.0);
  const auto values = gradients(1, 10007)[0];
  const size_t bytes[] = {values.size() * sizeof(float)};
  const auto source = to_device(values);
  const auto all_to_all = ops->allocate(values.size()), all_gather = ops->allocate(values.size());
  const auto as_bytes = [](float* p) { return reinterpret_cast<std::byte*>(p); };
  comm->all_to_all(as_bytes(source.get()), bytes, as_bytes(all_to_all.get()), bytes);
  comm->all_gather(as_bytes(source.get()), as_bytes(all_gather.get()), bytes);
  comm->all_gather(as_bytes(all_gather.get()), as_bytes(all_gather.get()), bytes);  // in place
  EXPECT_TRUE(same_bits(to_host(all_to_all.get(), values.size()), values));
  EXPECT_TRUE(same_bits(to_host(all_gather.get(), values.size()), values));
  comm->broadcast({as_bytes(source.get()), bytes[0]}, 0);
  comm->all_reduce_sum_fast({source.get(), values.size()});
  EXPECT_TRUE(same_bits(to_host(source.get(), values.size()), values));
}

TEST_F(CudaPlugin, TreeSumsHaveTheHostsBits) {
  for (const size_t v : {size_t{1}, size_t{6}, size_t{200}}) {  // 199 additions: two launches
    const size_t n = 5003;
    const auto all = gradients(v, n);
    std::vector<std::shared_ptr<float[]>> memory;
    std::vector<float*> operands;
    std::vector<train::TreeNode> leaves;
    for (size_t m = 0; m < v; ++m) {
      memory.push_back(to_device(all[m]));
      operands.push_back(memory.back().get());
      leaves.push_back({0, m});
    }
    ops->add(operands, train::order_of_additions(leaves, v), n);
    EXPECT_TRUE(same_bits(to_host(operands[0], n), oracle_gradient(all))) << v;
  }
}

TEST_F(CudaPlugin, GradientReducerInDeviceMemory) {
  const auto comm = plugin.make_communicator(host, 0, 60.0);
  const uint64_t v = 5;
  const auto all = gradients(v, 4099);
  train::GradReducer reducer(*comm, v, 4099, {.ops = ops.get()});
  for (int step = 0; step < 2; ++step) {
    for (uint64_t m = 0; m < v; ++m) {
      ops->copy(reducer.buffer().data(), all[m].data(), all[m].size());
      reducer.add(m);
    }
    const auto total = reducer.finish();
    EXPECT_TRUE(same_bits(to_host(total.data(), total.size()), oracle_gradient(all)));
  }
}

}  // namespace
}  // namespace nf::test

// The CUDA plug-in's kernels on a host with a GPU, through the operations that use them, against
// the plain compositions in float64 on the CPU: values and gradients. And equal bits when run
// again.
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "models/nfnet/gelu.h"
#include "models/nfnet/layers.h"
#include "models/nfnet/operators.h"
#include "models/nfnet/squeeze_excite.h"
#include "tests/support/tiny_net.h"
#include "trainer/device/load_cuda.h"

namespace nf::test {
namespace {

using Tensors = std::vector<at::Tensor>;
using Operation = std::function<at::Tensor(const Tensors&)>;

class CudaOperators : public testing::Test {
 protected:
  // Loading it registers the kernels.
  const train::CudaPlugin& plugin =
      train::load_cuda_plugin(train::cuda_plugin_path(program("nf-train")));
};

at::Tensor numbers(const std::string& name, const std::vector<int64_t>& shape,
                   double magnitude = 1) {
  const uint64_t seed = fnv1a64(name);
  std::vector<double> values(static_cast<size_t>(element_count(shape)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = magnitude * v_seeded(seed, i);
  return tensor_of(values, shape, at::kDouble);
}

// The result and the gradients of all inputs.
Tensors run(const Operation& operation, const Tensors& inputs, const at::Tensor& upstream) {
  Tensors in;
  for (const at::Tensor& x : inputs) in.push_back(x.detach().clone().set_requires_grad(true));
  const at::Tensor y = operation(in);
  torch::autograd::backward({y}, {upstream});
  Tensors out = {y.detach().cpu()};
  for (const at::Tensor& x : in) out.push_back(x.grad().cpu());
  return out;
}

// Runs `fused` on the GPU on inputs rounded to their types, and `exact` on the same numbers in
// float64. tolerance: of the largest element of each result.
void compare(const Operation& fused, const Operation& exact, const Tensors& inputs,
             const at::Tensor& upstream, double tolerance) {
  Tensors on_gpu, wide;
  for (const at::Tensor& x : inputs) {
    on_gpu.push_back(x.to(at::kCUDA));
    wide.push_back(x.to(at::kDouble));
  }
  const at::Tensor up = upstream.to(at::kCUDA);
  const Tensors found = run(fused, on_gpu, up), again = run(fused, on_gpu, up);
  const Tensors expected = run(exact, wide, upstream.to(at::kDouble));
  for (size_t i = 0; i < found.size(); ++i) {
    const double size = 1e-3 + expected[i].abs().max().item<double>();
    EXPECT_LE((found[i].to(at::kDouble) - expected[i]).abs().max().item<double>(), tolerance * size)
        << "tensor " << i;
    EXPECT_TRUE(same_bits(found[i], again[i])) << "tensor " << i;
  }
}

constexpr double kTolerance = 1e-5, kTolerance16 = 0x1p-7;

TEST_F(CudaOperators, AreRegistered) {
  for (const char* name : {"gelu_tanh", "gelu_tanh_backward", "standardize", "standardize_backward",
                           "pixel_sums", "scaled_sum"}) {
    const auto op = c10::Dispatcher::singleton().findSchema({std::string("nfscale::") + name, ""});
    ASSERT_TRUE(op.has_value()) << name;
    EXPECT_TRUE(op->hasKernelForDispatchKey(c10::DispatchKey::CUDA)) << name;
  }
  EXPECT_GE(plugin.device_count(), 1);
}

TEST_F(CudaOperators, Gelu) {
  const Operation fused = [](const auto& in) { return model::gelu_tanh(in[0]); };
  const Operation exact = [](const auto& in) { return at::gelu(in[0], "tanh"); };
  for (const int64_t n : {1, 7, 8, 1027, 300001}) {
    SCOPED_TRACE(n);
    const at::Tensor x = numbers("x", {n}, 6), up = numbers("up", {n});
    compare(fused, exact, {x.to(at::kFloat)}, up.to(at::kFloat), kTolerance);
    compare(fused, exact, {x.to(at::kBFloat16)}, up.to(at::kBFloat16), kTolerance16);
  }
  // A slice whose memory is not aligned to 16 bytes.
  const at::Tensor x = numbers("x", {1001}, 6).to(at::kFloat).to(at::kCUDA).narrow(0, 1, 1000);
  const at::Tensor y = model::gelu_tanh(x);
  EXPECT_TRUE(at::allclose(y, at::gelu(x, "tanh"), 1e-5, 1e-5));
}

TEST_F(CudaOperators, Standardize) {
  for (const auto& shape : std::vector<std::vector<int64_t>>{
           {6, 5, 3, 3}, {16, 3, 3, 3}, {33, 128, 3, 3}, {64, 1537, 1, 1}, {1, 1, 1, 2}})
    for (const auto flavour : {model::Flavour::kDm, model::Flavour::kTimm})
      for (const auto type : {at::kFloat, at::kBFloat16}) {
        SCOPED_TRACE(std::to_string(shape[0]) + " x " + std::to_string(shape[1]));
        const Operation fused = [=](const Tensors& in) {
          return model::standardize(in[0], in[1], flavour, 1.7, type);
        };
        const Operation exact = [=](const Tensors& in) {
          return model::standardize_composed(in[0], in[1], flavour, 1.7);
        };
        const at::Tensor w = (numbers("w", shape, 0.1) + 0.02).to(at::kFloat);
        const at::Tensor gain = (numbers("gain", {shape[0], 1, 1, 1}, 0.1) + 1).to(at::kFloat);
        compare(fused, exact, {w, gain}, numbers("up", shape).to(type),
                type == at::kFloat ? kTolerance : kTolerance16);
      }
}

TEST_F(CudaOperators, ExcitedSum) {
  struct Case {
    int64_t b, c, h, w, hidden;
    bool keep;
  };
  for (const Case& c : std::vector<Case>{{3, 8, 1, 1, 2, false},
                                         {2, 7, 3, 5, 3, false},
                                         {4, 16, 6, 6, 4, true},
                                         {2, 24, 31, 33, 8, true},
                                         {8, 256, 28, 28, 128, false}})
    for (const auto& [type, layout] : std::vector<std::pair<at::ScalarType, at::MemoryFormat>>{
             {at::kFloat, at::MemoryFormat::ChannelsLast},
             {at::kFloat, at::MemoryFormat::Contiguous},
             {at::kBFloat16, at::MemoryFormat::ChannelsLast},
             {at::kBFloat16, at::MemoryFormat::Contiguous}}) {
      SCOPED_TRACE(std::to_string(c.c) + " channels " + at::toString(type) +
                   (layout == at::MemoryFormat::ChannelsLast ? " NHWC" : " NCHW"));
      const std::vector<int64_t> shape = {c.b, c.c, c.h, c.w};
      const auto big = [&, t = type, l = layout](const char* name) {
        return numbers(name, shape).to(t).contiguous(l);
      };
      const auto small = [](const char* name, const std::vector<int64_t>& s, double add = 0) {
        return (numbers(name, s, 0.5) + add).to(at::kFloat);
      };
      const auto operation = [&c](bool fused) -> Operation {
        return [c, fused](const Tensors& in) {
          const model::SqueezeExcite p = {in[2], in[3], in[4], in[5], in[6], 0.4};
          at::Tensor keep;
          if (c.keep) {
            keep = at::ones({c.b, 1, 1, 1}, in[1].options().requires_grad(false));
            keep[1].zero_();
          }
          return fused ? model::excited_sum(in[0], in[1], p, keep)
                       : model::excited_sum_composed(in[0], in[1], p, keep);
        };
      };
      compare(
          operation(true), operation(false),
          {big("shortcut"), big("o"), small("w1", {c.hidden, c.c, 1, 1}), small("b1", {c.hidden}),
           small("w2", {c.c, c.hidden, 1, 1}), small("b2", {c.c}), small("gain", {1}, 0.7)},
          big("up"), type == at::kFloat ? 1e-4 : 2 * kTolerance16);
    }
}

}  // namespace
}  // namespace nf::test

// The CPU's kernels of the fused operations against the compositions they replace: values and
// gradients, every type, odd sizes, any layout of the inputs, any number of threads.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>

#include "models/nfnet/gelu.h"
#include "models/nfnet/layers.h"
#include "models/nfnet/squeeze_excite.h"
#include "tests/models/nfnet/operation.h"

namespace nf::test {
namespace {

const Operation kGelu = [](const auto& in) { return model::gelu_tanh(in[0]); };
const Operation kGeluOfTorch = [](const auto& in) { return at::gelu(in[0], "tanh"); };

TEST(Gelu, EqualsTorchs) {
  for (const int64_t n : {1, 7, 16, 33, 70001}) {
    const at::Tensor x = numbers("x", {n}, at::kDouble, 6), up = numbers("up", {n});
    const auto exact = run(kGeluOfTorch, {x}, up);
    const auto twice = run(kGelu, {x}, up);
    EXPECT_LT(worst(twice[0], exact[0]), 1e-13);
    EXPECT_LT(worst(twice[1], exact[1]), 1e-12);
    const auto single = run(kGelu, {x.to(at::kFloat)}, up.to(at::kFloat));
    const auto rounded = run(kGeluOfTorch, {x.to(at::kFloat).to(at::kDouble)}, up);
    EXPECT_LT(worst(single[0], rounded[0]), 3e-7 * 7);
    EXPECT_LT(worst(single[1], rounded[1]), 1e-6);
    const auto half = run(kGelu, {x.to(at::kBFloat16)}, up.to(at::kBFloat16));
    EXPECT_EQ(half[0].scalar_type(), at::kBFloat16);
    EXPECT_LT(worst(half[0], exact[0]), 6 * 0x1p-7);
    EXPECT_LT(worst(half[1], exact[1]), 3 * 0x1p-7);
  }
}

TEST(Gelu, FarFromZeroAndNotFinite) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const at::Tensor x = tensor_of({-1e4, -30, 30, 1e4, inf, std::nan("")}, {6}, at::kDouble);
    const at::Tensor y = model::gelu_tanh(x.to(type)).to(at::kDouble);
    EXPECT_NEAR(y[0].item<double>(), 0, 1e-30);
    EXPECT_NEAR(y[1].item<double>(), 0, 1e-30);
    EXPECT_EQ(y[2].item<double>(), 30);
    EXPECT_GT(y[3].item<double>(), 9900);
    EXPECT_EQ(y[4].item<double>(), inf);
    EXPECT_TRUE(std::isnan(y[5].item<double>())) << "a fault must not be hidden";
  }
}

TEST(Gelu, KeepsTheLayout) {
  const at::Tensor nchw = numbers("x", {2, 6, 5, 3}), up = numbers("up", {2, 6, 5, 3});
  const at::Tensor nhwc = nchw.contiguous(at::MemoryFormat::ChannelsLast);
  const auto a = run(kGelu, {nchw}, up), b = run(kGelu, {nhwc}, up);  // up in the other layout
  EXPECT_TRUE(b[0].is_contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_TRUE(at::equal(a[0], b[0]));
  EXPECT_TRUE(at::equal(a[1], b[1]));
  const at::Tensor cut = nchw.narrow(1, 1, 3);  // not dense
  EXPECT_TRUE(at::equal(model::gelu_tanh(cut), a[0].narrow(1, 1, 3)));
}

TEST(Gelu, WritesThePaddingBehindIt) {
  for (const auto& padding : {std::pair<int64_t, int64_t>{1, 1}, {0, 1}, {2, 0}, {0, 0}}) {
    const int64_t bottom = padding.first, right = padding.second;
    const Operation padded = [&](const auto& in) {
      return model::gelu_tanh_padded(in[0], bottom, right);
    };
    const Operation composed = [&](const auto& in) {
      return at::constant_pad_nd(at::gelu(in[0], "tanh"), {0, right, 0, bottom}, 0);
    };
    for (const auto type : {at::kDouble, at::kFloat, at::kBFloat16}) {
      const at::Tensor x = numbers("x", {3, 5, 6, 7}, type, 3);
      const at::Tensor up = numbers("up", {3, 5, 6 + bottom, 7 + right}, type);
      const auto expected = run(composed, {x.to(at::kDouble)}, up.to(at::kDouble));
      for (const auto format : {at::MemoryFormat::ChannelsLast, at::MemoryFormat::Contiguous}) {
        const auto found = run(padded, {x.contiguous(format)}, up.contiguous(format));
        ASSERT_EQ(found[0].sizes(), expected[0].sizes());
        const double rounding = type == at::kDouble  ? 1e-13
                                : type == at::kFloat ? 2e-6
                                                     : 3 * 0x1p-7;
        EXPECT_LT(worst(found[0], expected[0]), rounding);
        EXPECT_LT(worst(found[1], expected[1]), rounding);
      }
    }
  }
}

TEST(Gelu, MakesTheMeansOfFourPixelsToo) {
  const auto flat = [](const at::Tensor& a, const at::Tensor& b) {
    return at::cat({a.permute({0, 2, 3, 1}).flatten(), b.permute({0, 2, 3, 1}).flatten() * 3});
  };
  const Operation fused = [&](const auto& in) {
    const model::GeluPool both = model::gelu_pool_same(in[0], model::Flavour::kDm);
    return flat(both.activated, both.pooled);
  };
  const Operation composed = [&](const auto& in) {
    const at::Tensor y = at::gelu(in[0], "tanh");
    return flat(y, model::avg_pool_same(y));
  };
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{2, 2}, {6, 10}, {5, 4}, {4, 7}}) {
    const int64_t pooled = (height + 1) / 2 * ((width + 1) / 2);
    const at::Tensor x = numbers("x", {3, 19, height, width}, at::kDouble, 3);
    const at::Tensor up = numbers("up", {3 * 19 * (height * width + pooled)});
    const auto expected = run(composed, {x}, up);
    EXPECT_EQ(model::gelu_tanh_pools(x.contiguous(at::MemoryFormat::ChannelsLast)),
              height % 2 == 0 && width % 2 == 0);
    for (const auto format : {at::MemoryFormat::ChannelsLast, at::MemoryFormat::Contiguous})
      for (const auto type : {at::kDouble, at::kFloat, at::kBFloat16}) {
        const auto found = run(fused, {x.to(type).contiguous(format)}, up.to(type));
        const double rounding = type == at::kDouble  ? 1e-13
                                : type == at::kFloat ? 3e-6
                                                     : 12 * 0x1p-7;
        EXPECT_LT(worst(found[0], expected[0]), rounding);
        EXPECT_LT(worst(found[1], expected[1]), rounding);
      }
  }
}

TEST(Gelu, AddsTheGradientOfWhatIsUsedTwice) {
  const Operation fork = [](const auto& in) {
    const model::GeluFork both = model::gelu_tanh_fork(in[0]);
    return at::cat({both.x * 3, both.activated});
  };
  const Operation composed = [](const auto& in) {
    return at::cat({in[0] * 3, at::gelu(in[0], "tanh")});
  };
  const at::Tensor x = numbers("x", {2, 5, 6, 7}, at::kDouble, 3);
  const at::Tensor up = numbers("up", {4, 5, 6, 7});
  const auto expected = run(composed, {x}, up);
  for (const auto format : {at::MemoryFormat::ChannelsLast, at::MemoryFormat::Contiguous})
    for (const auto type : {at::kDouble, at::kFloat, at::kBFloat16}) {
      const auto found = run(fork, {x.to(type).contiguous(format)}, up.to(type));
      const double rounding = type == at::kDouble ? 1e-13 : type == at::kFloat ? 3e-6 : 12 * 0x1p-7;
      EXPECT_LT(worst(found[0], expected[0]), rounding);
      EXPECT_LT(worst(found[1], expected[1]), rounding);
    }
  // Used one way only.
  const Operation one = [](const auto& in) { return model::gelu_tanh_fork(in[0]).activated; };
  const at::Tensor above = up.narrow(0, 0, 2);
  EXPECT_LT(worst(run(one, {x}, above)[1], run(kGeluOfTorch, {x}, above)[1]), 1e-12);
}

struct SumCase {
  const char* what;
  int64_t b, c, h, w, hidden;
  bool keep, nhwc;
};
const std::vector<SumCase> kSumCases = {
    {"one pixel", 3, 5, 1, 1, 2, false, true},
    {"odd sizes", 2, 7, 3, 5, 3, false, true},
    {"dropped branches", 4, 16, 6, 6, 4, true, true},
    {"other layout", 2, 24, 9, 8, 8, true, false},
    {"many rows", 1, 17, 24, 31, 5, false, true},
    {"many images", 24, 32, 3, 2, 16, false, true},
    {"odd many images", 21, 24, 2, 2, 5, true, true},
};

std::vector<at::Tensor> sum_inputs(const SumCase& c, at::ScalarType type) {
  const auto big = [&](const char* name) {
    const at::Tensor x = numbers(name, {c.b, c.c, c.h, c.w}, type);
    return c.nhwc ? x.contiguous(at::MemoryFormat::ChannelsLast) : x;
  };
  const auto wide = type == at::kDouble ? at::kDouble : at::kFloat;
  return {big("shortcut"),
          big("o"),
          numbers("w1", {c.hidden, c.c, 1, 1}, wide),
          numbers("b1", {c.hidden}, wide),
          numbers("w2", {c.c, c.hidden, 1, 1}, wide),
          numbers("b2", {c.c}, wide),
          numbers("gain", {1}, wide) + 0.7};
}

Operation sum_operation(const SumCase& c, bool fused) {
  return [c, fused](const std::vector<at::Tensor>& in) {
    const model::SqueezeExcite p = {in[2], in[3], in[4], in[5], in[6], 0.4};
    at::Tensor keep;
    if (c.keep) {
      keep = at::ones({c.b, 1, 1, 1}, in[1].options().requires_grad(false));
      keep[1].zero_();
    }
    return fused ? model::excited_sum(in[0], in[1], p, keep)
                 : model::excited_sum_composed(in[0], in[1], p, keep);
  };
}

TEST(ExcitedSum, EqualsItsComposition) {
  for (const auto& c : kSumCases)
    for (const auto& [type, tolerance] :
         {std::pair(at::kDouble, 1e-11), {at::kFloat, 2e-4}, {at::kBFloat16, 0.0}}) {
      SCOPED_TRACE(std::string(c.what) + " " + at::toString(type));
      const at::Tensor up = numbers("up", {c.b, c.c, c.h, c.w}, type);
      const auto fused = run(sum_operation(c, true), sum_inputs(c, type), up);
      // bfloat16: against float32 of the same numbers, which the composition in bfloat16 is
      // further from.
      std::vector<at::Tensor> inputs = sum_inputs(c, type);
      at::Tensor upstream = up;
      if (type == at::kBFloat16) {
        for (at::Tensor& x : inputs) x = x.to(at::kFloat);
        upstream = up.to(at::kFloat);
      }
      const auto composed = run(sum_operation(c, false), inputs, upstream);
      for (size_t i = 0; i < fused.size(); ++i) {
        const double size = composed[i].abs().max().item<double>();
        const double allowed = type == at::kBFloat16 ? size * 0x1p-7 : (1 + size) * tolerance;
        EXPECT_LE(worst(fused[i], composed[i]), allowed) << "tensor " << i;
      }
    }
}

TEST(ExcitedSum, SameBitsForAnyNumberOfThreads) {
  const SumCase c = {"", 7, 33, 13, 11, 9, true, true};
  const at::Tensor up = numbers("up", {c.b, c.c, c.h, c.w}, at::kFloat);
  const int before = at::get_num_threads();
  std::vector<std::vector<at::Tensor>> results;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    results.push_back(run(sum_operation(c, true), sum_inputs(c, at::kFloat), up));
  }
  at::set_num_threads(before);
  for (size_t i = 0; i < results[0].size(); ++i) {
    EXPECT_TRUE(at::equal(results[0][i], results[1][i])) << i;
    EXPECT_TRUE(at::equal(results[0][i], results[2][i])) << i;
  }
}

TEST(Fused, ADeviceWithoutKernelsOfOursUsesTheComposition) {
  // The meta device computes shapes alone and has none.
  const SumCase c = {"", 2, 8, 3, 5, 4, true, true};
  std::vector<at::Tensor> inputs;
  for (const at::Tensor& x : sum_inputs(c, at::kFloat)) inputs.push_back(x.to(at::kMeta));
  const at::Tensor sum = sum_operation(c, true)(inputs);
  EXPECT_TRUE(sum.is_meta());
  EXPECT_EQ(sum.sizes(), inputs[1].sizes());
  EXPECT_EQ(model::gelu_tanh(inputs[1]).sizes(), inputs[1].sizes());
  const at::Tensor weight = numbers("w", {4, 3, 3, 3}, at::kFloat).to(at::kMeta);
  const at::Tensor gain = numbers("g", {4, 1, 1, 1}, at::kFloat).to(at::kMeta);
  const at::Tensor w = model::standardize(weight, gain, model::Flavour::kDm, 1.0, at::kBFloat16);
  EXPECT_EQ(w.sizes(), weight.sizes());
  EXPECT_EQ(w.scalar_type(), at::kBFloat16);
}

}  // namespace
}  // namespace nf::test

// The CPU's convolution with its own gradients, and products of few rows, against LibTorch's in
// float64: every type, odd sizes, any layout of the inputs, any number of threads.
#include "models/nfnet/conv.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <sstream>
#include <vector>

#include "models/nfnet/few_rows.h"
#include "models/nfnet/processor.h"
#include "models/nfnet/rows_product.h"
#include "models/nfnet/weight_gradient.h"
#include "models/nfnet/winograd.h"
#include "models/nfnet/winograd_tiles.h"
#include "tests/models/nfnet/operation.h"

namespace nf::test {
namespace {

const Operation kPointwise = [](const auto& in) { return model::conv(in[0], in[1], in[2], {}); };
const Operation kConvolution = [](const auto& in) {
  return at::convolution(in[0], in[1], in[2], {1, 1}, {0, 0}, {1, 1}, false, {0, 0}, 1);
};

TEST(Conv, OfOnePixelEqualsTorchs) {
  struct Case {
    int64_t batch, in, out, height, width;
  };
  for (const Case& c : {Case{3, 5, 7, 4, 6}, Case{2, 16, 96, 3, 3}, Case{1, 1, 1, 1, 1},
                        Case{5, 8, 4, 1, 1}, Case{2, 1, 3, 5, 1}, Case{4, 64, 32, 8, 8}}) {
    const at::Tensor x = numbers("x", {c.batch, c.in, c.height, c.width});
    const at::Tensor w = numbers("w", {c.out, c.in, 1, 1}), b = numbers("b", {c.out});
    const at::Tensor up = numbers("up", {c.batch, c.out, c.height, c.width});
    for (const bool channels_last : {false, true}) {
      const auto format =
          channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
      const auto expected = run(kConvolution, {x, w, b}, up);
      const auto found = run(kPointwise, {x.contiguous(format), w, b}, up.contiguous(format));
      const auto single = run(kPointwise, {x.to(at::kFloat), w.to(at::kFloat), b.to(at::kFloat)},
                              up.to(at::kFloat).contiguous(format));
      for (size_t i = 0; i < expected.size(); ++i) {
        ASSERT_EQ(found[i].sizes(), expected[i].sizes());
        EXPECT_LT(worst(found[i], expected[i]), 1e-12) << i;
        EXPECT_LT(worst(single[i], expected[i]), 2e-4) << i;
      }
      EXPECT_TRUE(found[0].is_contiguous(at::MemoryFormat::ChannelsLast));
    }
  }
}

TEST(Conv, OfOnePixelInBfloat16) {
  for (const int64_t side : {2, 9}) {  // forward as a product, and as a convolution
    const at::Tensor x = numbers("x", {3, 32, side, side}, at::kBFloat16);
    const at::Tensor w = numbers("w", {48, 32, 1, 1}, at::kBFloat16);
    const at::Tensor b = numbers("b", {48}, at::kBFloat16);
    const at::Tensor up = numbers("up", {3, 48, side, side}, at::kBFloat16);
    const auto expected =
        run(kConvolution, {x.to(at::kDouble), w.to(at::kDouble), b.to(at::kDouble)},
            up.to(at::kDouble));
    const auto found = run(kPointwise, {x, w, b}, up);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(found[i].scalar_type(), at::kBFloat16);
      EXPECT_LT(worst(found[i], expected[i]), 0x1p-8 * expected[i].abs().max().item<double>()) << i;
    }
  }
}

TEST(Conv, AsksForNoGradientOfImages) {
  const at::Tensor x = numbers("x", {2, 3, 4, 4});
  const at::Tensor w = numbers("w", {5, 3, 1, 1}).set_requires_grad(true), b = numbers("b", {5});
  torch::autograd::backward({model::conv(x, w, b, {}).sum()});
  EXPECT_FALSE(x.grad().defined());
  EXPECT_LT(worst(w.grad()[0].flatten(), x.sum({0, 2, 3})), 1e-12);
}

// Sizes of a convolution with a square kernel.
struct ConvCase {
  int64_t batch, in, out, side, kernel, stride, padding, groups;
  std::string name() const {
    std::ostringstream text;
    text << batch << " images, " << in << " -> " << out << ", " << side << " px, kernel " << kernel
         << ", stride " << stride << ", padding " << padding << ", groups " << groups;
    return text.str();
  }
  model::ConvShape shape() const { return {stride, padding, padding, groups}; }
  at::Tensor x() const { return numbers("x", {batch, in, side, side}); }
  at::Tensor weight() const { return numbers("w", {out, in / groups, kernel, kernel}); }
  at::Tensor upstream() const {
    const int64_t after = (side + 2 * padding - kernel) / stride + 1;
    return numbers("up", {batch, out, after, after});
  }
};

at::Tensor nhwc(const at::Tensor& x, at::ScalarType type) {
  return x.to(type).contiguous(at::MemoryFormat::ChannelsLast);
}

TEST(Conv, EqualsTorchs) {
  for (const ConvCase& c :
       {ConvCase{2, 3, 16, 9, 3, 2, 1, 1}, ConvCase{3, 24, 48, 6, 3, 1, 1, 3},
        ConvCase{2, 64, 64, 7, 3, 2, 0, 2}, ConvCase{4, 32, 16, 5, 1, 2, 0, 1}}) {
    SCOPED_TRACE(c.name());
    const at::Tensor b = numbers("b", {c.out});
    const Operation torchs = [&c](const auto& in) {
      return at::convolution(in[0], in[1], in[2], {c.stride, c.stride}, {c.padding, c.padding},
                             {1, 1}, false, {0, 0}, c.groups);
    };
    const Operation ours = [&c](const auto& in) {
      return model::conv(in[0], in[1], in[2], c.shape());
    };
    const auto expected = run(torchs, {c.x(), c.weight(), b}, c.upstream());
    const auto found = run(ours, {c.x(), c.weight(), b}, c.upstream());
    const auto rounded = [](const at::Tensor& x) { return x.to(at::kBFloat16); };
    const auto half =
        run(ours, {rounded(c.x()), rounded(c.weight()), rounded(b)}, rounded(c.upstream()));
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(found[i].sizes(), expected[i].sizes());
      EXPECT_LT(worst(found[i], expected[i]), 1e-12) << i;
      EXPECT_LT(worst(half[i], expected[i]), 0x1p-6 * expected[i].abs().max().item<double>()) << i;
    }
  }
}

TEST(WeightGradient, EqualsTorchsForAnyNumberOfThreads) {
  const int before = at::get_num_threads();
  for (const ConvCase& c :
       {ConvCase{2, 32, 8, 4, 1, 1, 0, 1}, ConvCase{1, 1, 1, 1, 1, 1, 0, 1},
        ConvCase{5, 40, 24, 7, 3, 1, 1, 1}, ConvCase{3, 96, 64, 9, 3, 2, 0, 2},
        ConvCase{4, 300, 520, 3, 1, 1, 0, 1}, ConvCase{2, 33, 70, 11, 5, 3, 2, 1},
        ConvCase{2, 32, 32, 150, 3, 1, 1, 1}, ConvCase{7, 64, 64, 60, 1, 1, 0, 1},
        ConvCase{2, 32, 8, 2, 3, 1, 1, 1}}) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      SCOPED_TRACE(c.name() + (type == at::kFloat ? ", float32" : ", bfloat16"));
      const at::Tensor x = nhwc(c.x(), type), g = nhwc(c.upstream(), type);
      std::vector<model::WeightGradient> found;
      for (const int threads : {1, 2, 3}) {
        at::set_num_threads(threads);
        found.push_back(model::weight_gradient(x, g, c.kernel, c.kernel, c.shape()));
      }
      at::set_num_threads(before);
      const auto [dx, dw, db] = at::convolution_backward(
          g.to(at::kDouble), x.to(at::kDouble), c.weight(), at::IntArrayRef(c.out),
          {c.stride, c.stride}, {c.padding, c.padding}, {1, 1}, false, {0, 0}, c.groups,
          {false, true, true});
      ASSERT_EQ(found[0].weight.sizes(), dw.sizes());
      const double tolerance = type == at::kFloat ? 3e-6 : 0x1p-8;
      EXPECT_LT(worst(found[0].weight, dw), tolerance * dw.abs().max().item<double>());
      EXPECT_LT(worst(found[0].bias, db), tolerance * db.abs().max().item<double>());
      for (const auto& other : found) {
        EXPECT_TRUE(at::equal(found[0].weight, other.weight));
        EXPECT_TRUE(at::equal(found[0].bias, other.bias));
      }
    }
  }
}

TEST(WeightGradient, IsNotForTensorsItCannotTake) {
  const at::Tensor w = at::zeros({64, 32, 3, 3});
  EXPECT_FALSE(model::weight_gradient_is_faster(at::zeros({8, 32, 6, 6}, at::kDouble), w, 1));
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::zeros({8, 32, 6, 6}, type);
    EXPECT_FALSE(model::weight_gradient_is_faster(x, w.narrow(1, 0, 8), 4));
    EXPECT_FALSE(model::weight_gradient_is_faster(x.narrow(0, 0, 1), w, 1));
  }
}

struct WinogradCase {
  int64_t batch, in, out, height, width, groups;
};

TEST(Winograd, EqualsTorchsForAnyNumberOfThreads) {
  const int before = at::get_num_threads();
  for (const WinogradCase& c :
       {WinogradCase{1, 32, 32, 1, 1, 1}, WinogradCase{3, 64, 32, 5, 8, 1},
        WinogradCase{2, 96, 192, 7, 3, 3}, WinogradCase{5, 64, 96, 12, 9, 2},
        WinogradCase{4, 128, 128, 2, 31, 1}, WinogradCase{1, 160, 160, 6, 6, 5},
        WinogradCase{43, 48, 48, 8, 7, 3}}) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      if (type == at::kBFloat16 && c.in / c.groups % 32 != 0) continue;
      std::ostringstream text;
      text << c.batch << " images, " << c.in << " -> " << c.out << ", " << c.height << " x "
           << c.width << ", groups " << c.groups << ", " << type;
      SCOPED_TRACE(text.str());
      const at::Tensor x = nhwc(numbers("x", {c.batch, c.in, c.height, c.width}), type);
      const at::Tensor w = nhwc(numbers("w", {c.out, c.in / c.groups, 3, 3}), type);
      const at::Tensor b = numbers("b", {c.out}, type);
      const at::Tensor g = nhwc(numbers("up", {c.batch, c.out, c.height, c.width}), type);
      std::vector<std::array<at::Tensor, 4>> found;
      for (const int threads : {1, 2, 3}) {
        at::set_num_threads(threads);
        model::WeightGradient of_weight = model::winograd_of_weight(x, g, c.groups);
        found.push_back({model::winograd_conv(x, w, b, c.groups),
                         model::winograd_of_images(g, w, c.groups), of_weight.weight,
                         of_weight.bias});
      }
      at::set_num_threads(before);
      const auto exact = [](const at::Tensor& t) { return t.to(at::kDouble); };
      const auto [dx, dw, db] =
          at::convolution_backward(exact(g), exact(x), exact(w), at::IntArrayRef(c.out), {1, 1},
                                   {1, 1}, {1, 1}, false, {0, 0}, c.groups, {true, true, true});
      const std::array<at::Tensor, 4> expected = {
          at::convolution(exact(x), exact(w), exact(b), {1, 1}, {1, 1}, {1, 1}, false, {0, 0},
                          c.groups),
          dx, dw, db};
      const double tolerance = type == at::kFloat ? 3e-6 : 0x1p-6;
      for (size_t i = 0; i < expected.size(); ++i) {
        ASSERT_EQ(found[0][i].sizes(), expected[i].sizes());
        EXPECT_LT(worst(found[0][i], expected[i]),
                  tolerance * expected[i].abs().max().item<double>())
            << i;
        for (const auto& other : found) EXPECT_TRUE(at::equal(found[0][i], other[i])) << i;
      }
      const int64_t last = c.batch - 1;  // has the bits that it has alone
      EXPECT_TRUE(at::equal(model::winograd_conv(x.narrow(0, last, 1), w, b, c.groups),
                            found[0][0].narrow(0, last, 1)));
      EXPECT_TRUE(at::equal(model::winograd_of_images(g.narrow(0, last, 1), w, c.groups),
                            found[0][1].narrow(0, last, 1)));
    }
  }
}

TEST(Winograd, KeepsWhatIsNotFinite) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const double bad : {infinity, std::nan("")}) {
      const at::Tensor x = nhwc(numbers("x", {1, 32, 8, 8}), type);
      const at::Tensor w = nhwc(numbers("w", {32, 32, 3, 3}), type);
      const at::Tensor b = numbers("b", {32}, type);
      x[0][5][3][3] = bad;
      const at::Tensor y = model::winograd_conv(x, w, b, 1).isfinite();
      const model::WeightGradient of_weight = model::winograd_of_weight(x, x, 1);
      EXPECT_FALSE(y[0].narrow(1, 2, 3).narrow(2, 2, 3).any().item<bool>());
      EXPECT_TRUE(y[0].narrow(1, 6, 2).all().item<bool>());  // nothing there depends on it
      EXPECT_FALSE(of_weight.weight.isfinite().all().item<bool>());
      EXPECT_FALSE(of_weight.bias.isfinite().all().item<bool>());
    }
  }
}

TEST(Winograd, TakesLargeTilesWhereTheyAreMostlyFull) {
  const auto large = [](int64_t height, int64_t width) {
    return model::four_by_four_is_faster(at::zeros({2, 16, height, width}));
  };
  EXPECT_TRUE(large(4, 4) && large(8, 8) && large(56, 56) && large(14, 14) && large(7, 7));
  EXPECT_FALSE(large(1, 1) || large(2, 2) || large(6, 6) || large(2, 31));
}

TEST(Winograd, IsForTheProcessorsItWasMeasuredOn) {
  const at::Tensor w = at::zeros({64, 32, 3, 3}), x = at::zeros({2, 64, 6, 6});
  EXPECT_EQ(model::winograd_is_faster(x, w, {1, 1, 1, 2}),
            model::has_avx512() && !model::is_intel());
  EXPECT_EQ(model::winograd_is_faster(x.to(at::kBFloat16), w, {1, 1, 1, 2}),
            model::has_avx512_bf16() && !model::has_amx_bf16());
}

TEST(Winograd, IsNotForOtherConvolutions) {
  const at::Tensor w = at::zeros({64, 32, 3, 3}), x = at::zeros({2, 64, 6, 6});
  EXPECT_FALSE(model::winograd_is_faster(x.to(at::kDouble), w, {1, 1, 1, 2}));
  EXPECT_FALSE(model::winograd_is_faster(x, w, {2, 1, 1, 2}));
  EXPECT_FALSE(model::winograd_is_faster(x, w, {1, 0, 0, 2}));
  EXPECT_FALSE(model::winograd_is_faster(x, w.narrow(1, 0, 8), {1, 1, 1, 8}));
  EXPECT_FALSE(model::winograd_is_faster(x, at::zeros({64, 32, 1, 1}), {1, 1, 1, 2}));
  const at::Tensor half = x.to(at::kBFloat16);
  EXPECT_FALSE(model::winograd_is_faster(half, w.narrow(1, 0, 16), {1, 1, 1, 4}));
}

TEST(RowsProduct, EqualsProductsOfMatricesForAnyNumberOfThreads) {
  struct Case {
    int64_t rows, depth, columns;
  };
  const int before = at::get_num_threads();
  for (const Case& c :
       {Case{8, 1, 16}, Case{128, 33, 48}, Case{72, 512, 112}, Case{2048, 16, 32}}) {
    SCOPED_TRACE(std::to_string(c.rows) + " " + std::to_string(c.depth));
    const at::Tensor rows = numbers("rows", {c.rows, c.depth}, at::kFloat);
    const at::Tensor matrix = numbers("matrix", {c.depth, c.columns}, at::kFloat);
    const at::Tensor turned = matrix.t().contiguous().t();
    const at::Tensor bias = numbers("bias", {c.columns}, at::kFloat);
    const auto exact = [](const at::Tensor& t) { return t.to(at::kDouble); };
    const at::Tensor expected = exact(rows).mm(exact(matrix));
    std::vector<at::Tensor> found;
    for (const int threads : {1, 2, 3}) {
      at::set_num_threads(threads);
      found.push_back(model::rows_product(rows, matrix, {}));
      EXPECT_TRUE(at::equal(found.back(), model::rows_product(rows, turned, {})));
      EXPECT_LT(worst(model::rows_product(rows, turned, bias), expected + exact(bias)), 1e-4);
    }
    at::set_num_threads(before);
    EXPECT_LT(worst(found[0], expected), 2e-6 * (1 + expected.abs().max().item<double>()));
    for (const at::Tensor& other : found) EXPECT_TRUE(at::equal(found[0], other));
  }
  EXPECT_FALSE(model::rows_product_is_faster(at::zeros({7, 16}), 16));
  EXPECT_FALSE(model::rows_product_is_faster(at::zeros({8, 16}), 24));
  EXPECT_FALSE(model::rows_product_is_faster(at::zeros({8, 16}, at::kDouble), 16));
}

TEST(FewRows, EqualsProductsOfMatricesForAnyNumberOfThreads) {
  struct Case {
    int64_t images, in, out;
  };
  const int before = at::get_num_threads();
  for (const Case& c : {Case{1, 1, 1}, Case{7, 33, 13}, Case{8, 1536, 768}, Case{16, 16, 64},
                        Case{11, 255, 301}, Case{3, 48, 3}}) {
    SCOPED_TRACE(std::to_string(c.images) + " " + std::to_string(c.in));
    const at::Tensor x = numbers("x", {c.images, c.in}, at::kFloat);
    const at::Tensor w = numbers("w", {c.out, c.in}, at::kFloat);
    const at::Tensor b = numbers("b", {c.out}, at::kFloat);
    const at::Tensor g = numbers("g", {c.images, c.out}, at::kFloat);
    const auto exact = [](const at::Tensor& t) { return t.to(at::kDouble); };
    ASSERT_TRUE(model::are_few_rows(x));
    std::vector<std::vector<at::Tensor>> found;
    for (const int threads : {1, 2, 3}) {
      at::set_num_threads(threads);
      found.push_back({model::few_rows_linear(x, w, b), model::few_rows_of_input(g, w),
                       model::few_rows_of_weight(g, x)});
    }
    at::set_num_threads(before);
    const std::vector<at::Tensor> expected = {at::linear(exact(x), exact(w), exact(b)),
                                              exact(g).mm(exact(w)), exact(g).t().mm(exact(x))};
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(found[0][i].sizes(), expected[i].sizes());
      EXPECT_LT(worst(found[0][i], expected[i]),
                2e-6 * (1 + expected[i].abs().max().item<double>()))
          << i;
      for (const auto& other : found) EXPECT_TRUE(at::equal(found[0][i], other[i])) << i;
    }
  }
  EXPECT_FALSE(model::are_few_rows(at::zeros({17, 4})));
  EXPECT_FALSE(model::are_few_rows(at::zeros({2, 4}, at::kDouble)));
}

}  // namespace
}  // namespace nf::test

// The arithmetic of the fused operators' CUDA kernels, run by a loop in place of a grid, against
// the formulas in float64. What it cannot show, the launches and the hardware's approximate exp,
// cuda_operators_test shows on a GPU.
#include <gtest/gtest.h>

#include <numeric>

#include "models/nfnet/cuda/gelu.cuh"
#include "models/nfnet/cuda/squeeze_excite.cuh"
#include "models/nfnet/cuda/standardize.cuh"
#include "tests/support/golden_values.h"
#include "tests/support/host_block.h"

namespace nf::test {
namespace {

// n numbers of a type, rounded to it: they begin at a multiple of 16 bytes, as device memory does.
template <class T>
std::vector<T> numbers(const std::string& name, int64_t n, double magnitude = 1) {
  const uint64_t seed = fnv1a64(name);
  std::vector<T> out(static_cast<size_t>(n));
  for (size_t i = 0; i < out.size(); ++i)
    store(out[i], static_cast<float>(magnitude * v_seeded(seed, i)));
  return out;
}

template <class T>
double value(T x) {
  return static_cast<double>(load(x));
}

// Relative error of one rounding to T.
template <class T>
constexpr double kRounding = sizeof(T) == 2 ? 0x1p-8 : 0x1p-24;

double exact_gelu(double x) {
  const double z = 2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
  return x / (1 + std::exp(-z));
}
double exact_slope(double x) {
  const double k = std::sqrt(2 / M_PI), h = std::tanh(k * (x + 0.044715 * x * x * x));
  return 0.5 * (1 + h) + 0.5 * x * (1 - h * h) * k * (1 + 3 * 0.044715 * x * x);
}

template <class T, int kCount>
void check_gelu(int64_t n) {
  SCOPED_TRACE(std::to_string(n) + " elements, packs of " + std::to_string(kCount));
  const auto x = numbers<T>("x", n, 6), up = numbers<T>("up", n);
  std::vector<T> y(x.size()), dx(x.size());
  for (int64_t first = 0; first < n; first += kCount) {
    model::gelu_pack<kCount>(x.data(), y.data(), first, n);
    model::gelu_backward_pack<kCount>(up.data(), x.data(), dx.data(), first, n);
  }
  for (size_t i = 0; i < x.size(); ++i) {
    const double in = value(x[i]), expected = exact_gelu(in);
    EXPECT_NEAR(value(y[i]), expected, kRounding<T> * std::abs(expected) + 2e-6);
    const double slope = value(up[i]) * exact_slope(in);
    EXPECT_NEAR(value(dx[i]), slope, kRounding<T> * std::abs(slope) + 3e-6);
  }
}

TEST(CudaTwin, Gelu) {
  for (const int64_t n : {1, 7, 8, 9, 1000, 1027}) {
    check_gelu<float, kPackOf<float>>(n);
    check_gelu<uint16_t, kPackOf<uint16_t>>(n);
    check_gelu<float, 1>(n);
  }
}

TEST(CudaTwin, GeluFarFromZeroAndNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_NEAR(model::gelu_value(-30.0F), 0, 1e-30);
  EXPECT_NEAR(model::gelu_slope(-30.0F), 0, 1e-30);
  EXPECT_NEAR(model::gelu_slope(-1e4F), 0, 1e-20);
  EXPECT_EQ(model::gelu_value(1e4F), 1e4F);
  EXPECT_EQ(model::gelu_slope(1e4F), 1.0F);
  EXPECT_EQ(model::gelu_value(inf), inf);
  EXPECT_TRUE(std::isnan(model::gelu_value(std::nanf(""))));
  EXPECT_TRUE(std::isnan(model::gelu_slope(std::nanf("")))) << "a fault must not be hidden";
}

struct Row {
  std::vector<double> out, grad_w;
  double grad_gain;
};

// The formulas at the head of standardize.cpp.
template <class T>
Row exact_row(const model::StandardizeRule& rule, const std::vector<float>& w, double gain,
              const std::vector<T>& grad) {
  const double n = static_cast<double>(w.size());
  const double mean = std::accumulate(w.begin(), w.end(), 0.0) / n;
  double q = 0, u = 0, grad_mean = 0;
  for (const float x : w) q += (x - mean) * (x - mean);
  for (size_t i = 0; i < w.size(); ++i) {
    u += value(grad[i]) * (w[i] - mean);
    grad_mean += value(grad[i]) / n;
  }
  const bool floored = !rule.timm && q <= 1e-4;
  const double inv = 1 / std::sqrt(rule.timm ? q + n * 1e-5 : std::max(q, 1e-4));
  const double factor = static_cast<double>(rule.scale) * gain * inv;
  Row row;
  for (size_t i = 0; i < w.size(); ++i) {
    const double x = w[i] - mean;
    row.out.push_back(factor * x);
    row.grad_w.push_back(factor * (value(grad[i]) - grad_mean) -
                         (floored ? 0 : factor * inv * inv * u * x));
  }
  row.grad_gain = static_cast<double>(rule.scale) * inv * u;
  return row;
}

double largest(const std::vector<double>& x) {
  double most = 0;
  for (const double v : x) most = std::max(most, std::abs(v));
  return most;
}

template <class T, class Block>
void check_standardize(int64_t n, bool timm, double magnitude) {
  SCOPED_TRACE(std::to_string(n) + (timm ? " timm" : " dm") + " threads " +
               std::to_string(Block::kThreads) + " magnitude " + std::to_string(magnitude));
  const model::StandardizeRule rule = {n, timm, 1.7F};
  auto w = numbers<float>("w", n, magnitude);
  for (float& x : w) x += static_cast<float>(0.3 * magnitude);  // a mean to take away
  const auto grad = numbers<T>("grad", n);
  const float gain = 0.9F;
  const Row exact = exact_row(rule, w, gain, grad);
  std::vector<double> scratch(2 * kReduceScratch<Block>);
  std::vector<T> out(w.size());
  std::vector<float> grad_w(w.size());
  float grad_gain = 0;
  model::standardize_row(Block{}, scratch.data(), rule, w.data(), gain, out.data());
  model::standardize_row_backward(Block{}, scratch.data(), rule, w.data(), gain, grad.data(),
                                  grad_w.data(), &grad_gain);
  const double size = largest(exact.out), grad_size = largest(exact.grad_w);
  for (size_t i = 0; i < w.size(); ++i) {
    EXPECT_NEAR(value(out[i]), exact.out[i], kRounding<T> * std::abs(exact.out[i]) + 2e-6 * size);
    EXPECT_NEAR(value(grad_w[i]), exact.grad_w[i], 4e-6 * grad_size + 1e-9);
  }
  EXPECT_NEAR(value(grad_gain), exact.grad_gain, 4e-6 * std::max(1.0, grad_size * magnitude));
}

TEST(CudaTwin, Standardize) {
  for (const bool timm : {false, true})
    for (const int64_t n : {1, 2, 27, 31, 128, 144, 1152, 1537})
      for (const double magnitude : {0.05, 1e-5}) {  // the second: below dm's floor
        check_standardize<float, HostBlock<128>>(n, timm, magnitude);
        check_standardize<float, HostBlock<128, true>>(n, timm, magnitude);
        check_standardize<uint16_t, HostBlock<128>>(n, timm, magnitude);
        check_standardize<float, HostBlock<64>>(n, timm, magnitude);
      }
}

// A tensor [images, channels, pixels] in memory.
struct Laid {
  bool nchw;
  int64_t pixels, channels;
  size_t at(int64_t b, int64_t c, int64_t p) const {
    return static_cast<size_t>(nchw ? (b * channels + c) * pixels + p
                                    : (b * pixels + p) * channels + c);
  }
};

// Runs a whole grid of the kernel of pixel_sums_nchw.
template <class T, int kCount, bool kReversed>
std::vector<float> twin_row_sums(const model::PixelSums<T>& in, int64_t images, float factor) {
  const HostBlock<model::kPartThreads, kReversed> block;
  std::vector<float> scratch(model::kPartThreads);
  const int64_t rows = images * in.channels;
  std::vector<float> out(static_cast<size_t>(rows), NAN);
  for (int64_t first = 0; first < rows; first += model::kRowsOfBlock)
    model::sum_rows<kCount>(block, scratch.data(), in, rows, first, factor, out.data());
  return out;
}

// Runs a whole grid of the two kernels of pixel_sums.
template <class T, int kCount, bool kReversed>
std::vector<float> twin_sums(const model::PixelSums<T>& in, int64_t images, float factor) {
  const HostBlock<model::kPartThreads, kReversed> block;
  std::vector<float> scratch(model::kPartScratch<kCount>);
  const int64_t parts = model::pixel_parts(in.pixels);
  std::vector<float> partial(static_cast<size_t>(images * parts * in.channels), NAN);
  for (int64_t image = 0; image < images; ++image)
    for (int64_t part = 0; part < parts; ++part)
      for (int64_t pack = 0; pack * kCount < in.channels; pack += model::kPartPacks)
        model::sum_part<kCount>(block, scratch.data(), in, image, part, pack,
                                parts == 1 ? factor : 1.0F,
                                partial.data() + (image * parts + part) * in.channels);
  if (parts == 1) return partial;
  std::vector<float> out;
  for (int64_t i = 0; i < images * in.channels; ++i)
    out.push_back(model::sum_of_parts(
        partial.data() + (i / in.channels) * parts * in.channels + i % in.channels, parts,
        in.channels, factor));
  return out;
}

template <class T, int kCount>
void check_sums(int64_t images, int64_t pixels, int64_t channels, bool nchw) {
  SCOPED_TRACE(std::to_string(images) + " images, " + std::to_string(pixels) + " pixels, " +
               std::to_string(channels) + " channels, packs of " + std::to_string(kCount) +
               (nchw ? ", NCHW" : ", NHWC"));
  const Laid laid = {nchw, pixels, channels};
  const auto o = numbers<T>("o", images * pixels * channels);
  const auto g = numbers<T>("g", images * pixels * channels);
  for (const bool product : {false, true}) {
    const model::PixelSums<T> in = {o.data(), product ? g.data() : nullptr, pixels, channels};
    const auto sums = nchw ? twin_row_sums<T, kCount, false>(in, images, 0.25F)
                           : twin_sums<T, kCount, false>(in, images, 0.25F);
    const auto reversed = nchw ? twin_row_sums<T, kCount, true>(in, images, 0.25F)
                               : twin_sums<T, kCount, true>(in, images, 0.25F);
    EXPECT_EQ(sums, reversed);
    for (int64_t b = 0; b < images; ++b)
      for (int64_t c = 0; c < channels; ++c) {
        double exact = 0;
        for (int64_t p = 0; p < pixels; ++p) {
          const size_t i = laid.at(b, c, p);
          exact += 0.25 * value(o[i]) * (product ? value(g[i]) : 1.0);
        }
        EXPECT_NEAR(value(sums[static_cast<size_t>(b * channels + c)]), exact,
                    1e-6 * std::sqrt(static_cast<double>(pixels)));
      }
  }
}

TEST(CudaTwin, PixelSums) {
  for (const auto& [images, pixels, channels] :
       {std::array<int64_t, 3>{1, 1, 8}, {2, 15, 24}, {1, 256, 8}, {1, 257, 16}, {2, 1000, 264}}) {
    check_sums<float, kPackOf<float>>(images, pixels, channels, false);
    check_sums<uint16_t, kPackOf<uint16_t>>(images, pixels, channels, false);
  }
  for (const auto& [images, pixels, channels] :
       {std::array<int64_t, 3>{1, 8, 1}, {2, 16, 23}, {1, 256, 8}, {1, 264, 9}, {2, 1000, 33}}) {
    check_sums<float, kPackOf<float>>(images, pixels, channels, true);
    check_sums<uint16_t, kPackOf<uint16_t>>(images, pixels, channels, true);
  }
  check_sums<uint16_t, kPackOf<uint16_t> / 2>(2, 196, 9, true);
  for (const bool nchw : {false, true}) {
    check_sums<float, 1>(3, 35, 7, nchw);
    check_sums<uint16_t, 1>(1, 300, 33, nchw);
    check_sums<uint16_t, 1>(1, 1, 1, nchw);
  }
}

// Not inlined: GCC 12 would warn of the null pointers that it sees beside `more`.
template <class T, int kCount>
[[gnu::noinline]] void run_scaled(const model::ScaledSum<T>& sum, int64_t images, bool nchw) {
  if (nchw) {
    for (int64_t pack = 0; pack < images * sum.pixels * sum.channels / kCount; ++pack)
      model::scaled_row_pack<kCount>(sum, pack);
    return;
  }
  for (int64_t image = 0; image < images; ++image)
    for (uint32_t pack = 0; pack < sum.pixels * sum.channels / kCount; ++pack)
      model::scaled_sum_pack<kCount>(sum, image, pack);
}

template <class T, int kCount>
void check_scaled(int64_t images, int64_t pixels, int64_t channels, bool nchw) {
  const int64_t n = images * pixels * channels;
  const auto x = numbers<T>("x", n), added = numbers<T>("added", n);
  const auto factor = numbers<float>("factor", images * channels);
  const auto more = numbers<float>("more", images * channels);
  for (const bool per_pixel : {false, true}) {
    std::vector<T> out(x.size());
    const model::ScaledSum<T> sum = {x.data(),
                                     factor.data(),
                                     per_pixel ? added.data() : nullptr,
                                     per_pixel ? nullptr : more.data(),
                                     out.data(),
                                     pixels,
                                     channels};
    run_scaled<T, kCount>(sum, images, nchw);
    for (int64_t i = 0; i < n; ++i) {
      const auto at = static_cast<size_t>(i);
      const auto channel = static_cast<size_t>(
          nchw ? i / pixels : i / (pixels * channels) * channels + i % channels);
      const double exact = value(x[at]) * value(factor[channel]) +
                           (per_pixel ? value(added[at]) : value(more[channel]));
      EXPECT_NEAR(value(out[at]), exact, kRounding<T> * std::abs(exact) + 2e-7);
    }
  }
}

TEST(CudaTwin, ScaledSum) {
  check_scaled<float, kPackOf<float>>(2, 15, 24, false);
  check_scaled<uint16_t, kPackOf<uint16_t>>(3, 7, 16, false);
  for (const int64_t pixels : {8, 9, 49, 64}) {  // packs reach over rows
    check_scaled<float, kPackOf<float>>(2, pixels, 16, true);
    check_scaled<uint16_t, kPackOf<uint16_t>>(3, pixels, 24, true);
  }
  for (const bool nchw : {false, true}) {
    check_scaled<float, 1>(2, 9, 7, nchw);
    check_scaled<uint16_t, 1>(1, 1, 1, nchw);
  }
}

}  // namespace
}  // namespace nf::test

// The same loop in every instruction set that this processor has: the same bits.
#include "core/vector_loop.h"

#include <gtest/gtest.h>

#include <vector>

namespace nf {
namespace {

TEST(VectorLoop, SameBitsInEveryInstructionSet) {
  constexpr int kCount = 1003;  // vectors and a rest
  std::vector<float> x(kCount);
  for (int i = 0; i < kCount; ++i) x[static_cast<size_t>(i)] = static_cast<float>(i - 500) / 7.0F;
  const auto result = [&](const auto& runner) {
    std::vector<float> y(kCount);
    const float* in = x.data();
    float* out = y.data();
    runner([=]() NF_INLINE {
      for (int i = 0; i < kCount; ++i)
        out[i] = __builtin_fmaf(in[i], 1.1F, in[i] * in[i] + 0.3F) / (1.0F + in[i] * in[i]);
    });
    return y;
  };
  const std::vector<float> plain = result([](const auto& loop) { loop(); });
  EXPECT_EQ(result([](const auto& loop) { vector_loop(loop); }), plain);
#if defined(__x86_64__) && defined(__GNUC__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    EXPECT_EQ(result([](const auto& loop) { detail::run_avx2(loop); }), plain);
  }
  if (detail::best_vectors() == detail::Vectors::kAvx512) {
    EXPECT_EQ(result([](const auto& loop) { detail::run_avx512(loop); }), plain);
  }
#endif
}

}  // namespace
}  // namespace nf

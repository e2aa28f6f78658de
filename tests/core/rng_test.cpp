// Philox against the known-answer vectors of the Random123 distribution (kat_vectors, philox4x32
// 10), and the draws built on it: pure functions of their arguments, in range, with the right
// moments.
#include "core/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>

namespace nf {
namespace {

TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32(0, 0, 0), (Philox4{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint64_t ones = ~uint64_t{0};
  EXPECT_EQ(philox4x32(ones, ones, ones),
            (Philox4{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  // Digits of pi: counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0.
  EXPECT_EQ(philox4x32(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e),
            (Philox4{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(DeriveKey, SeedsNumbersAndRolesAreUnrelated) {
  std::set<uint64_t> keys;
  for (uint64_t seed = 0; seed < 50; ++seed)
    for (uint64_t number = 0; number < 50; ++number)
      for (const Stream role : {Stream::kDataOrder, Stream::kAugment})
        keys.insert(derive_key(seed, number, role));
  EXPECT_EQ(keys.size(), 5000u);  // (seed, n + 1) is not (seed + 1, n)
}

TEST(PositionRng, IsAPureFunctionOfSeedStreamAndPosition) {
  PositionRng a(1, Stream::kAugment, 7), b(1, Stream::kAugment, 7);
  PositionRng other_seed(2, Stream::kAugment, 7), other_stream(1, Stream::kInit, 7),
      other_position(1, Stream::kAugment, 8);
  for (int i = 0; i < 100; ++i) {
    const uint64_t value = a.next_u64();
    EXPECT_EQ(value, b.next_u64());
    EXPECT_NE(value, other_seed.next_u64());
    EXPECT_NE(value, other_stream.next_u64());
    EXPECT_NE(value, other_position.next_u64());
  }
}

TEST(PositionRng, UniformAndBelowStayInRange) {
  PositionRng rng(3, Stream::kTest, 0);
  std::set<uint64_t> seen;
  for (int i = 0; i < 2000; ++i) {
    const double u = rng.uniform();
    EXPECT_TRUE(u >= 0.0 && u < 1.0);
    const double v = rng.uniform(-2.0, 5.0);
    EXPECT_TRUE(v >= -2.0 && v < 5.0);
    seen.insert(rng.below(10));
    EXPECT_EQ(rng.below(1), 0u);
  }
  EXPECT_EQ(seen.size(), 10u);
  EXPECT_EQ(*seen.rbegin(), 9u);
}

struct Moments {
  double mean, variance;
};

Moments moments(const std::function<double(PositionRng&)>& draw) {
  constexpr int kDraws = 40000;
  double sum = 0.0, squares = 0.0;
  for (uint64_t position = 0; position < kDraws; ++position) {
    PositionRng rng(11, Stream::kTest, position);  // first draw of each position, as in training
    const double x = draw(rng);
    sum += x;
    squares += x * x;
  }
  const double mean = sum / kDraws;
  return {mean, squares / kDraws - mean * mean};
}

// Tolerances: more than five standard errors; the draws are fixed, so the test cannot flicker.
TEST(PositionRng, Moments) {
  const auto uniform = moments([](PositionRng& r) { return r.uniform(); });
  EXPECT_NEAR(uniform.mean, 0.5, 0.01);
  EXPECT_NEAR(uniform.variance, 1.0 / 12, 0.003);
  const auto normal = moments([](PositionRng& r) { return r.normal(); });
  EXPECT_NEAR(normal.mean, 0.0, 0.03);
  EXPECT_NEAR(normal.variance, 1.0, 0.04);
  for (const double shape : {0.3, 2.5}) {
    const auto gamma = moments([&](PositionRng& r) { return r.gamma(shape); });
    EXPECT_NEAR(gamma.mean, shape, 0.05);
    EXPECT_NEAR(gamma.variance, shape, 0.12);
  }
  const auto beta = moments([](PositionRng& r) { return r.beta(0.4, 0.8); });
  EXPECT_NEAR(beta.mean, 0.4 / 1.2, 0.01);
  EXPECT_NEAR(beta.variance, 0.4 * 0.8 / (1.2 * 1.2 * 2.2), 0.004);
}

}  // namespace
}  // namespace nf

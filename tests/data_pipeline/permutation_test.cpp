// Permutation: a bijection for every n, an exact inverse, batches equal to single values, an order
// without visible structure, and frozen bits. The checker that the order passes is shown to refuse
// orders that are known to be bad.
#include "data_pipeline/permutation.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "core/rng.h"
#include "tests/data_pipeline/order_quality.h"

namespace nf::data {
namespace {

using test::kBadZ;
using test::Order;
using test::pair_z;
using test::worst_serial_z;

uint64_t key_of(uint64_t seed, uint64_t epoch) {
  return derive_key(seed, epoch, Stream::kDataOrder);
}

TEST(Permutation, BijectionForEverySizeUpToTheTableAndBeyond) {
  std::vector<uint64_t> out;
  for (uint64_t n = 1; n <= 4200; ++n) {
    const Permutation p(n, key_of(n, 3));
    std::vector<uint8_t> seen(n);
    out.resize(n);
    p.fill(0, out);
    for (uint64_t i = 0; i < n; ++i) {
      ASSERT_LT(out[i], n) << "n " << n;
      ASSERT_EQ(seen[out[i]]++, 0) << "n " << n << ": " << out[i] << " twice";
      ASSERT_EQ(p.inverse(out[i]), i) << "n " << n;
    }
  }
}

TEST(Permutation, BijectionByEnumerationAroundPowersOfTwo) {
  for (const uint64_t n : {65535u, 65536u, 65537u, 262144u, 262145u, 1048577u}) {
    const Permutation p(n, key_of(1, n));
    std::vector<uint8_t> seen(n);
    std::vector<uint64_t> out(n);
    p.fill(0, out);
    for (const uint64_t value : out) {
      ASSERT_LT(value, n);
      ASSERT_EQ(seen[value]++, 0) << "n " << n;
    }
  }
}

TEST(Permutation, InverseRoundTripAroundPowersOfTwoUpToTwoToThe63) {
  for (int k = 12; k <= 63; ++k) {
    const uint64_t power = uint64_t{1} << k;
    for (const uint64_t n : {power - 1, power, k < 63 ? power + 1 : power}) {
      const Permutation p(n, key_of(7, static_cast<uint64_t>(k)));
      PositionRng rng(5, Stream::kTest, n);
      for (int draw = 0; draw < 500; ++draw) {
        // The ends and random places.
        const uint64_t i = draw < 4   ? static_cast<uint64_t>(draw)
                           : draw < 8 ? n - 1 - static_cast<uint64_t>(draw - 4)
                                      : rng.below(n);
        const uint64_t j = p.at(i);
        ASSERT_LT(j, n);
        ASSERT_EQ(p.inverse(j), i) << "n " << n;
        ASSERT_EQ(p.at(p.inverse(i)), i) << "n " << n;
      }
    }
  }
}

TEST(Permutation, FillEqualsAtForAnyBeginAndLength) {
  for (const uint64_t n : {100ull, 4096ull, 4097ull, 1281167ull, (1ull << 32) + 1, 1ull << 40}) {
    const Permutation p(n, 99);
    PositionRng rng(6, Stream::kTest, n);
    for (const uint64_t length : {0u, 1u, 7u, 8u, 33u, 511u, 512u, 513u, 1500u}) {
      std::vector<uint64_t> out(std::min(length, n));
      const uint64_t begin = rng.below(n - out.size() + 1);
      p.fill(begin, out);
      for (size_t k = 0; k < out.size(); ++k) {
        ASSERT_EQ(out[k], p.at(begin + k)) << "n " << n << " begin " << begin << " k " << k;
      }
    }
  }
}

TEST(Permutation, OutOfRangeIsRefused) {
  const Permutation p(10, 1);
  std::vector<uint64_t> out(5);
  EXPECT_THROW(p.at(10), std::logic_error);
  EXPECT_THROW(p.inverse(10), std::logic_error);
  EXPECT_THROW(p.fill(6, out), std::logic_error);
  EXPECT_THROW(Permutation(0, 1), std::logic_error);
  EXPECT_THROW(Permutation((uint64_t{1} << 63) + 1, 1), std::logic_error);
}

// Runs are reproducible across versions only while these hold.
TEST(Permutation, GoldenValues) {
  const auto first = [](uint64_t n, uint64_t key) {
    std::array<uint64_t, 6> out;
    Permutation(n, key).fill(0, out);
    return out;
  };
  using Six = std::array<uint64_t, 6>;
  EXPECT_EQ(first(10, 1), (Six{2, 9, 0, 1, 4, 6}));
  EXPECT_EQ(first(4096, 2), (Six{3543, 3109, 846, 2567, 1287, 62}));
  EXPECT_EQ(first(4097, 3), (Six{3690, 346, 2855, 2863, 3615, 1461}));
  EXPECT_EQ(first(1281167, 0x123456789ABCDEF0),
            (Six{80454, 686054, 834938, 455165, 956574, 70991}));
  EXPECT_EQ(first(4000000000, 5),
            (Six{2074552743, 3761699002, 208590416, 3553835687, 3944741547, 2501184771}));
  EXPECT_EQ(first(uint64_t{1} << 63, 6),
            (Six{4793970626370586145, 3916669042390834247, 8072199230472063047, 3049495481196393408,
                 6652433872808066911, 3091092177362651027}));
}

const std::vector<uint64_t> kLags = {1, 2, 3, 7, 16, 64, 255, 256, 4096, 65536};

Order order_of(const Permutation& p) {
  return [&p](uint64_t i) { return p.at(i); };
}

TEST(PermutationQuality, SerialPairsShowNoStructure) {
  for (const uint64_t n :
       {10007ull, 65537ull, 1281167ull, 1ull << 24, 4000000000ull, (1ull << 32) + 1, 1ull << 40}) {
    for (uint64_t seed = 0; seed < 3; ++seed) {
      const Permutation p(n, key_of(seed, 0));
      EXPECT_LT(worst_serial_z(n, order_of(p), std::min<uint64_t>(n / 2, 65536), kLags), kBadZ)
          << "n " << n << " seed " << seed;
    }
  }
}

TEST(PermutationQuality, LongSerialPairs) {
  constexpr uint64_t kPairs = 1 << 21;
  const Permutation p(4000000000, key_of(1, 0));
  for (const uint64_t lag : {uint64_t{1}, uint64_t{65536}}) {
    std::vector<uint64_t> a(kPairs), b(kPairs);
    p.fill(0, a);
    p.fill(lag, b);
    const double z = pair_z(
        p.size(), [&](uint64_t i) { return a[i]; }, [&](uint64_t i) { return b[i]; }, kPairs);
    EXPECT_LT(std::abs(z), kBadZ) << "lag " << lag;
  }
}

TEST(PermutationQuality, SeedsAndEpochsAreUncorrelated) {
  constexpr uint64_t kPairs = 100000;
  for (const uint64_t n : {262144ull, 1281167ull, 4000000000ull}) {
    for (uint64_t seed = 0; seed < 3; ++seed) {
      for (uint64_t epoch = 0; epoch < 3; ++epoch) {
        const Permutation p(n, key_of(seed, epoch));
        const std::array<Permutation, 3> others = {
            Permutation(n, key_of(seed, epoch + 1)), Permutation(n, key_of(seed + 1, epoch)),
            // seed + epoch as a key would make this pair equal
            Permutation(n, key_of(seed + 1, epoch + 1))};
        for (const Permutation& other : others) {
          EXPECT_LT(std::abs(pair_z(n, order_of(p), order_of(other), kPairs)), kBadZ) << n;
        }
        const Permutation next_seed(n, key_of(seed + 1, epoch)),
            next_epoch(n, key_of(seed, epoch + 1));
        EXPECT_LT(std::abs(pair_z(n, order_of(next_epoch), order_of(next_seed), kPairs)), kBadZ);
        EXPECT_NE(next_epoch.at(0), next_seed.at(0));
      }
    }
  }
}

TEST(PermutationQuality, FirstPlacesOfSmallTablesAreUniform) {
  // Which value stands first, over 64,000 keys: chi-squared with 63 degrees of freedom.
  std::array<int, 64> count{};
  for (uint64_t key = 0; key < 64000; ++key) ++count[Permutation(64, key).at(0)];
  double chi_squared = 0;
  for (const int c : count) chi_squared += (c - 1000.0) * (c - 1000.0) / 1000.0;
  EXPECT_LT((chi_squared - 63) / std::sqrt(2 * 63.0), kBadZ);
}

// Planted faults: the checker must refuse each of them, or passing it would mean nothing.
TEST(PermutationQuality, CheckerRefusesALinearGenerator) {
  constexpr uint64_t n = 1 << 24;
  const Order lcg = [](uint64_t i) { return (i * 11400714819323198485ull + 12345) % n; };
  EXPECT_GT(worst_serial_z(n, lcg, 65536, kLags), 10 * kBadZ);
}

TEST(PermutationQuality, CheckerRefusesATwoRoundNetwork) {
  constexpr uint64_t n = 1 << 24;
  const Order two_rounds = [](uint64_t i) {
    const auto mix = [](uint64_t half, uint64_t key) {
      return (((half ^ key) * 0x9E3779B97F4A7C15ull) >> 40) & 0xFFF;
    };
    uint64_t high = i >> 12, low = i & 0xFFF;
    high ^= mix(low, 0x123);
    low ^= mix(high, 0x456);
    return high << 12 | low;
  };
  EXPECT_GT(worst_serial_z(n, two_rounds, 65536, kLags), 10 * kBadZ);
}

TEST(PermutationQuality, CheckerRefusesEqualOrdersOfTwoEpochs) {
  const Permutation p(1281167, key_of(1, 1)), same(1281167, key_of(1, 1));
  EXPECT_GT(pair_z(p.size(), order_of(p), order_of(same), 100000), 10 * kBadZ);
}

}  // namespace
}  // namespace nf::data

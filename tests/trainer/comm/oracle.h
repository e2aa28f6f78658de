// Gradients whose sum depends on the order of additions, and their sum by the definition of the
// tree: recursive, serial, by other code than the one under test.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "core/rng.h"

namespace nf::test {

// Element i of micro-batch m's gradient: random sign, exponents over 24 binary places.
inline float gradient(uint64_t m, size_t i) {
  PositionRng rng(4711, Stream::kTest, m * 1000003 + i);
  const double scale = std::ldexp(1.0, static_cast<int>(rng.below(24)) - 12);
  return static_cast<float>(rng.uniform(-1.0, 1.0) * scale);
}

inline std::vector<std::vector<float>> gradients(uint64_t micro_batches, size_t elements) {
  std::vector<std::vector<float>> all(micro_batches, std::vector<float>(elements));
  for (uint64_t m = 0; m < micro_batches; ++m)
    for (size_t i = 0; i < elements; ++i) all[m][i] = gradient(m, i);
  return all;
}

// node [begin, begin + width) = left half + right half; a right half that begins beyond the leaves
// is skipped.
template <class T>
T oracle_node(std::span<const T> leaves, size_t begin, size_t width) {
  if (width == 1) return leaves[begin];
  const T left = oracle_node(leaves, begin, width / 2);
  if (begin + width / 2 >= leaves.size()) return left;
  return left + oracle_node(leaves, begin + width / 2, width / 2);
}

template <class T>
T oracle_sum(std::span<const T> leaves) {
  size_t width = 1;
  while (width < leaves.size()) width *= 2;
  return oracle_node(leaves, 0, width);
}

inline std::vector<float> oracle_gradient(const std::vector<std::vector<float>>& all) {
  if (all.empty()) return {};
  std::vector<float> total(all.front().size()), leaves(all.size());
  for (size_t i = 0; i < total.size(); ++i) {
    for (size_t m = 0; m < all.size(); ++m) leaves[m] = all[m][i];
    total[i] = oracle_sum<float>(leaves);
  }
  return total;
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return false;
  return a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

}  // namespace nf::test

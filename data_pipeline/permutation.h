// A keyed bijection of [0, n) in O(1) time and memory: the order of an epoch without a shuffled
// list. Both directions are arithmetic, so restoring a position costs nothing and "when was sample
// i seen" has an answer.
//
// n > 4096: alternating Feistel network of 6 rounds on bit_width(n - 1) bits, halves floor(b/2) and
// ceil(b/2), with cycle walking (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA
// 2002). b is the width of the largest value, not ceil(log2(largest value)), which is one bit short
// at 2^k. n <= 4096: a Fisher-Yates table, since so few bits leave a Feistel network too few
// permutations.
//
// The map is part of a run's bits: golden vectors in the tests freeze it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace nf::data {

class Permutation {
 public:
  // 0 < n <= 2^63. Different keys, and different n under one key, give unrelated orders.
  Permutation(uint64_t n, uint64_t key);

  uint64_t size() const { return n_; }
  uint64_t at(uint64_t i) const;       // i < n
  uint64_t inverse(uint64_t j) const;  // at(inverse(j)) == j
  // out[k] = at(begin + k), several times faster than at(); begin + out.size() <= n.
  void fill(uint64_t begin, std::span<uint64_t> out) const;

  static constexpr uint64_t kTableMax = 4096;
  static constexpr int kRounds = 6;

 private:
  struct Table {
    std::vector<uint16_t> forward, backward;
  };

  uint64_t encrypt(uint64_t x) const;
  uint64_t decrypt(uint64_t x) const;

  uint64_t n_;
  int low_bits_ = 0, high_bits_ = 0;  // widths of the halves
  std::array<uint32_t, kRounds> keys_{};
  std::shared_ptr<const Table> table_;  // only when n <= kTableMax; shared by copies
};

}  // namespace nf::data

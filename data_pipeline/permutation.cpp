// See permutation.h.
#include "data_pipeline/permutation.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "core/check.h"
#include "core/rng.h"

namespace nf::data {
namespace {

constexpr uint64_t kKeyDomain = 0x6F72646572000000ull;  // separates these draws from all others

// One round's function: multiply, fold, multiply; the top bits, which depend on every bit of the
// half, go into the other half. `shift` is 32 less the width of that half.
[[gnu::always_inline]] inline uint32_t mix(uint32_t half, uint32_t key, int shift) {
  uint32_t h = half * 0x9E3779B1u + key;
  h ^= h >> 15;
  h *= 0x85EBCA77u;
  return h >> shift;
}

using Keys = std::array<uint32_t, Permutation::kRounds>;

// The network over a block. The rounds are unrolled inside so that the compiler vectorises across
// indices; inlined into one function per instruction set below. Integer arithmetic: the same bits
// in all of them.
[[gnu::always_inline]] inline void encrypt_block(const Keys& round_keys, int low_bits,
                                                 int high_bits, uint64_t* values, size_t count) {
  const Keys keys = round_keys;
  const uint32_t low_mask = static_cast<uint32_t>((uint64_t{1} << low_bits) - 1);
  const int low_shift = 32 - low_bits, high_shift = 32 - high_bits;
  for (size_t i = 0; i < count; ++i) {
    uint32_t high = static_cast<uint32_t>(values[i] >> low_bits);
    uint32_t low = static_cast<uint32_t>(values[i]) & low_mask;
#pragma GCC unroll 8
    for (size_t r = 0; r < keys.size(); r += 2) {
      high ^= mix(low, keys[r], high_shift);
      low ^= mix(high, keys[r + 1], low_shift);
    }
    values[i] = static_cast<uint64_t>(high) << low_bits | low;
  }
}

using EncryptAll = void (*)(const Keys&, int low_bits, int high_bits, uint64_t* values,
                            size_t count);

void encrypt_baseline(const Keys& keys, int low_bits, int high_bits, uint64_t* values, size_t n) {
  encrypt_block(keys, low_bits, high_bits, values, n);
}

#if defined(__x86_64__) && defined(__GNUC__)
[[gnu::target("avx2")]] void encrypt_avx2(const Keys& keys, int low_bits, int high_bits,
                                          uint64_t* values, size_t n) {
  encrypt_block(keys, low_bits, high_bits, values, n);
}

[[gnu::target("avx512f,avx512vl,avx512dq,avx512bw")]] void encrypt_avx512(
    const Keys& keys, int low_bits, int high_bits, uint64_t* values, size_t n) {
  encrypt_block(keys, low_bits, high_bits, values, n);
}

EncryptAll best_encrypt() {
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")) {
    return encrypt_avx512;
  }
  return __builtin_cpu_supports("avx2") ? encrypt_avx2 : encrypt_baseline;
}
#else
EncryptAll best_encrypt() { return encrypt_baseline; }
#endif

}  // namespace

Permutation::Permutation(uint64_t n, uint64_t key) : n_(n) {
  NF_CHECK(n > 0 && n <= uint64_t{1} << 63, "Permutation: 0 < n <= 2^63");
  if (n <= kTableMax) {
    auto table = std::make_shared<Table>();
    table->forward.resize(n);
    table->backward.resize(n);
    std::iota(table->forward.begin(), table->forward.end(), uint16_t{0});
    PositionRng rng(key, Stream::kDataOrder, n);
    for (uint64_t i = n; i > 1; --i) std::swap(table->forward[i - 1], table->forward[rng.below(i)]);
    for (uint64_t i = 0; i < n; ++i) table->backward[table->forward[i]] = static_cast<uint16_t>(i);
    table_ = std::move(table);
    return;
  }
  const int bits = std::bit_width(n - 1);
  low_bits_ = (bits + 1) / 2;
  high_bits_ = bits / 2;
  for (size_t r = 0; r < keys_.size(); ++r) {
    keys_[r] = philox4x32(key, n, kKeyDomain + r / 4)[r % 4];
  }
}

uint64_t Permutation::encrypt(uint64_t x) const {
  encrypt_block(keys_, low_bits_, high_bits_, &x, 1);
  return x;
}

uint64_t Permutation::decrypt(uint64_t x) const {
  uint32_t high = static_cast<uint32_t>(x >> low_bits_);
  uint32_t low = static_cast<uint32_t>(x & ((uint64_t{1} << low_bits_) - 1));
  for (size_t r = keys_.size(); r > 0; r -= 2) {
    low ^= mix(high, keys_[r - 1], 32 - low_bits_);
    high ^= mix(low, keys_[r - 2], 32 - high_bits_);
  }
  return static_cast<uint64_t>(high) << low_bits_ | low;
}

uint64_t Permutation::at(uint64_t i) const {
  NF_CHECK(i < n_, "Permutation::at: index past the end");
  if (table_) return table_->forward[i];
  do i = encrypt(i);
  while (i >= n_);  // at most half of the values lie outside, so this ends after 2 turns on average
  return i;
}

uint64_t Permutation::inverse(uint64_t j) const {
  NF_CHECK(j < n_, "Permutation::inverse: value past the end");
  if (table_) return table_->backward[j];
  do j = decrypt(j);
  while (j >= n_);
  return j;
}

void Permutation::fill(uint64_t begin, std::span<uint64_t> out) const {
  NF_CHECK(begin <= n_ && out.size() <= n_ - begin, "Permutation::fill: range past the end");
  if (table_) {
    for (size_t k = 0; k < out.size(); ++k) out[k] = table_->forward[begin + k];
    return;
  }
  const EncryptAll encrypt_all = best_encrypt();
  constexpr size_t kBlock = 512;
  std::array<uint64_t, kBlock> walking;
  std::array<uint16_t, kBlock> slot;
  for (size_t base = 0; base < out.size(); base += kBlock) {
    const size_t count = std::min(kBlock, out.size() - base);
    uint64_t* block = out.data() + base;
    for (size_t k = 0; k < count; ++k) block[k] = begin + base + k;
    encrypt_all(keys_, low_bits_, high_bits_, block, count);
    // Values outside [0, n) walk on: gathered without branches, so that the network runs over full
    // vectors again.
    size_t left = 0;
    for (size_t k = 0; k < count; ++k) {
      slot[left] = static_cast<uint16_t>(k);
      left += block[k] >= n_;
    }
    for (size_t k = 0; k < left; ++k) walking[k] = block[slot[k]];
    while (left > 0) {
      encrypt_all(keys_, low_bits_, high_bits_, walking.data(), left);
      size_t still = 0;
      for (size_t k = 0; k < left; ++k) {
        const uint64_t value = walking[k];
        const uint16_t home = slot[k];
        block[home] = value;
        walking[still] = value;
        slot[still] = home;
        still += value >= n_;
      }
      left = still;
    }
  }
}

}  // namespace nf::data

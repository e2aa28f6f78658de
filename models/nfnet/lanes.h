// 16 channels at a time: vectors of float32, read from and rounded to float32 or bfloat16 (as its
// 16 bits), for loops that are compiled for each instruction set (core/vector_loop.h).
#pragma once

#include <cstdint>
#include <utility>

#include "core/vector_loop.h"
#include "models/nfnet/processor.h"

namespace nf::model {

using Lanes [[gnu::vector_size(64)]] = float;
using LaneWords [[gnu::vector_size(64)]] = uint32_t;
using LaneHalves [[gnu::vector_size(32)]] = uint16_t;

NF_INLINE inline void load_lanes(const float* from, Lanes& to) {
  __builtin_memcpy(&to, from, sizeof to);
}
NF_INLINE inline void load_lanes(const uint16_t* from, Lanes& to) {  // bfloat16
  LaneHalves halves;
  __builtin_memcpy(&halves, from, sizeof halves);
  const LaneWords words = __builtin_convertvector(halves, LaneWords) << 16;
  __builtin_memcpy(&to, &words, sizeof to);
}

// Rounds to bfloat16, to nearest, ties to even; with the processor's instruction if it has one.
template <bool kInstruction>
struct Rounding {
  NF_INLINE static void halves(const Lanes& x, LaneHalves& out) {
#if defined(__x86_64__) && defined(__GNUC__)
    if constexpr (kInstruction) {
      asm("vcvtneps2bf16 %1, %0" : "=v"(out) : "v"(x));
      return;
    }
#endif
    LaneWords bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    out = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, LaneHalves);
  }
};

// Runs body(Rounding) compiled for the processor, as vector_loop does.
template <class Body>
void lanes_loop(const Body& body) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (has_avx512_bf16() && detail::best_vectors() == detail::Vectors::kAvx512)
    return detail::run_avx512([&]() NF_INLINE { body(Rounding<true>{}); });
#endif
  vector_loop([&]() NF_INLINE { body(Rounding<false>{}); });
}

template <class Round>
NF_INLINE inline void store_lanes(Round, float* to, const Lanes& x) {
  __builtin_memcpy(to, &x, sizeof x);
}
template <class Round>
NF_INLINE inline void store_lanes(Round, uint16_t* to, const Lanes& x) {
  LaneHalves rounded;
  Round::halves(x, rounded);
  __builtin_memcpy(to, &rounded, sizeof rounded);
}
// The values of two tiles or channels side by side.
template <class Round>
NF_INLINE inline void store_pairs(Round, uint32_t* to, const Lanes& low, const Lanes& high) {
  LaneHalves a, b;
  Round::halves(low, a);
  Round::halves(high, b);
  const LaneWords both =
      __builtin_convertvector(a, LaneWords) | __builtin_convertvector(b, LaneWords) << 16;
  __builtin_memcpy(to, &both, sizeof both);
}

// Rows i and i + kHalf of a matrix whose quarters of kHalf lanes are to change places: the lanes of
// the new first (or second) of them, counted through both rows.
template <int kHalf, bool kSecond, int... kLane>
NF_INLINE inline void take_quarters(const Lanes& first, const Lanes& second, Lanes& to,
                                    std::integer_sequence<int, kLane...>) {
  constexpr int kTaken = kSecond ? kHalf : 0;
  to = __builtin_shufflevector(
      first, second, ((kLane & kHalf) == 0 ? kLane + kTaken : 16 + kLane - kHalf + kTaken)...);
}

// A 16 x 16 matrix turned over its diagonal, quarters of 2, 4, 8 and 16 lanes at a time.
template <int kHalf = 1>
NF_INLINE inline void transpose(Lanes (&rows)[16]) {
  constexpr std::make_integer_sequence<int, 16> kLanes;
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    if ((i & kHalf) != 0) continue;
    const Lanes first = rows[i], second = rows[i + kHalf];
    take_quarters<kHalf, false>(first, second, rows[i], kLanes);
    take_quarters<kHalf, true>(first, second, rows[i + kHalf], kLanes);
  }
  if constexpr (kHalf < 8) transpose<2 * kHalf>(rows);
}

}  // namespace nf::model

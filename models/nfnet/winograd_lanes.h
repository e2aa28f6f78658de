// The linear maps of Winograd's convolution F(2x2, 3x3) on 16 channels at a time (A. Lavin and
// S. Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308, section 4.1):
//   Y = A^T [(G g G^T) * (B^T d B)] A,
// d a tile of 4 x 4 inputs, g a kernel of 3 x 3, Y 2 x 2 outputs, * element by element. Its
// gradient of g is G^T [(B^T d B) * (A dY A^T)] G.
#pragma once

#include <cstdint>

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

// A 16 x 16 matrix turned over its diagonal, quarters of 2, 4, 8 and 16 lanes at a time.
template <int kHalf = 1>
NF_INLINE inline void transpose(Lanes (&rows)[16]) {
  LaneWords low, high;  // lanes of the first row of a pair, then 16 on of the second
#pragma GCC unroll 16
  for (uint32_t l = 0; l < 16; ++l) {
    low[l] = (l & kHalf) == 0 ? l : 16 + l - kHalf;
    high[l] = (l & kHalf) == 0 ? l + kHalf : 16 + l;
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    if ((i & kHalf) != 0) continue;
    const Lanes first = rows[i], second = rows[i + kHalf];
    rows[i] = __builtin_shuffle(first, second, low);
    rows[i + kHalf] = __builtin_shuffle(first, second, high);
  }
  if constexpr (kHalf < 8) transpose<2 * kHalf>(rows);
}

// Each maps a line of kFrom values to one of kTo.
struct OfInput {  // B^T
  static constexpr int kFrom = 4, kTo = 4;
  NF_INLINE static void line(const Lanes (&d)[4], Lanes (&to)[4]) {
    to[0] = d[0] - d[2];
    to[1] = d[1] + d[2];
    to[2] = d[2] - d[1];
    to[3] = d[1] - d[3];
  }
};
struct OfKernel {  // G
  static constexpr int kFrom = 3, kTo = 4;
  NF_INLINE static void line(const Lanes (&g)[3], Lanes (&to)[4]) {
    const Lanes outer = g[0] + g[2];
    to[0] = g[0];
    to[1] = 0.5F * (outer + g[1]);
    to[2] = 0.5F * (outer - g[1]);
    to[3] = g[2];
  }
};
struct ToOutput {  // A^T
  static constexpr int kFrom = 4, kTo = 2;
  NF_INLINE static void line(const Lanes (&m)[4], Lanes (&to)[2]) {
    to[0] = m[0] + m[1] + m[2];
    to[1] = m[1] - m[2] - m[3];
  }
};
struct OfOutputGradient {  // A
  static constexpr int kFrom = 2, kTo = 4;
  NF_INLINE static void line(const Lanes (&g)[2], Lanes (&to)[4]) {
    to[0] = g[0];
    to[1] = g[0] + g[1];
    to[2] = g[0] - g[1];
    to[3] = -g[1];
  }
};
struct ToKernelGradient {  // G^T
  static constexpr int kFrom = 4, kTo = 3;
  NF_INLINE static void line(const Lanes (&u)[4], Lanes (&to)[3]) {
    const Lanes inner = 0.5F * (u[1] + u[2]);
    to[0] = u[0] + inner;
    to[1] = 0.5F * (u[1] - u[2]);
    to[2] = inner + u[3];
  }
};

// The map applied to the columns, then to the rows.
template <class Map>
NF_INLINE inline void transform(const Lanes (&in)[Map::kFrom][Map::kFrom],
                                Lanes (&out)[Map::kTo][Map::kTo]) {
  Lanes half[Map::kTo][Map::kFrom];
#pragma GCC unroll 4
  for (int j = 0; j < Map::kFrom; ++j) {
    Lanes column[Map::kFrom], mapped[Map::kTo];
#pragma GCC unroll 4
    for (int i = 0; i < Map::kFrom; ++i) column[i] = in[i][j];
    Map::line(column, mapped);
#pragma GCC unroll 4
    for (int i = 0; i < Map::kTo; ++i) half[i][j] = mapped[i];
  }
#pragma GCC unroll 4
  for (int i = 0; i < Map::kTo; ++i) Map::line(half[i], out[i]);
}

}  // namespace nf::model

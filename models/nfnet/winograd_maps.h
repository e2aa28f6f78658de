// Winograd's convolutions on 16 channels at a time (A. Lavin and S. Gray, "Fast Algorithms for
// Convolutional Neural Networks", arXiv 1509.09308, section 4.1):
//   Y = A^T [(G g G^T) * (B^T d B)] A,
// d a tile of inputs, g a kernel of 3 x 3, Y a smaller tile of outputs, * element by element. Its
// gradient of g is G^T [(B^T d B) * (A dY A^T)] G. The maps are products of polynomials by their
// values at some points, one a row of B^T and G and a column of A^T.
#pragma once

#include "models/nfnet/lanes.h"

namespace nf::model {

// F(2x2, 3x3): 16 multiplications for 2 x 2 outputs, at the points 0, 1, -1 and infinity.
struct TwoByTwo {
  static constexpr int kOutputs = 2, kInputs = 4;  // pixels a side

  struct OfInput {  // B^T
    static constexpr int kFrom = 4, kTo = 4, kAtOnce = 4;
    NF_INLINE static void line(const Lanes (&d)[4], Lanes (&to)[4]) {
      to[0] = d[0] - d[2];
      to[1] = d[1] + d[2];
      to[2] = d[2] - d[1];
      to[3] = d[1] - d[3];
    }
  };
  struct OfKernel {  // G
    static constexpr int kFrom = 3, kTo = 4, kAtOnce = 4;
    NF_INLINE static void line(const Lanes (&g)[3], Lanes (&to)[4]) {
      const Lanes outer = g[0] + g[2];
      to[0] = g[0];
      to[1] = 0.5F * (outer + g[1]);
      to[2] = 0.5F * (outer - g[1]);
      to[3] = g[2];
    }
  };
  struct ToOutput {  // A^T
    static constexpr int kFrom = 4, kTo = 2, kAtOnce = 2;
    NF_INLINE static void line(const Lanes (&m)[4], Lanes (&to)[2]) {
      to[0] = m[0] + m[1] + m[2];
      to[1] = m[1] - m[2] - m[3];
    }
  };
  struct OfOutputGradient {  // A
    static constexpr int kFrom = 2, kTo = 4, kAtOnce = 4;
    NF_INLINE static void line(const Lanes (&g)[2], Lanes (&to)[4]) {
      to[0] = g[0];
      to[1] = g[0] + g[1];
      to[2] = g[0] - g[1];
      to[3] = -g[1];
    }
  };
  struct ToKernelGradient {  // G^T
    static constexpr int kFrom = 4, kTo = 3, kAtOnce = 3;
    NF_INLINE static void line(const Lanes (&u)[4], Lanes (&to)[3]) {
      const Lanes inner = 0.5F * (u[1] + u[2]);
      to[0] = u[0] + inner;
      to[1] = 0.5F * (u[1] - u[2]);
      to[2] = inner + u[3];
    }
  };
};

// F(4x4, 3x3): 36 multiplications for 4 x 4 outputs, at the points 0, infinity, p, -p, 1 / p and
// -1 / p, where p = sqrt(1/2): rounding errors are smaller than with the usual 0, 1, -1, 2, -2 and
// infinity (docs/decisions/023).
struct FourByFour {
  static constexpr int kOutputs = 4, kInputs = 6;
  static constexpr float kPoint = 0.70710678F, kOther = 1.41421356F;  // p and 1 / p

  struct OfInput {
    static constexpr int kFrom = 6, kTo = 6, kAtOnce = 2;
    NF_INLINE static void line(const Lanes (&d)[6], Lanes (&to)[6]) {
      to[0] = (d[0] + d[4]) - 2.5F * d[2];
      to[1] = (d[1] + d[5]) - 2.5F * d[3];
      const Lanes even = d[4] - 2.0F * d[2], odd = kPoint * (d[3] - 2.0F * d[1]);
      to[2] = even + odd;
      to[3] = even - odd;
      const Lanes other_even = d[4] - 0.5F * d[2], other_odd = kOther * (d[3] - 0.5F * d[1]);
      to[4] = other_even + other_odd;
      to[5] = other_even - other_odd;
    }
  };
  struct OfKernel {
    static constexpr int kFrom = 3, kTo = 6, kAtOnce = 6;
    NF_INLINE static void line(const Lanes (&g)[3], Lanes (&to)[6]) {
      to[0] = g[0];
      to[1] = g[2];
      const Lanes even = (-2.0F / 3) * (g[0] + 0.5F * g[2]), odd = (-2.0F / 3 * kPoint) * g[1];
      to[2] = even + odd;
      to[3] = even - odd;
      const Lanes other_even = (1.0F / 6) * (g[0] + 2.0F * g[2]), other_odd = (kOther / 6) * g[1];
      to[4] = other_even + other_odd;
      to[5] = other_even - other_odd;
    }
  };
  struct ToOutput {
    static constexpr int kFrom = 6, kTo = 4, kAtOnce = 4;
    NF_INLINE static void line(const Lanes (&m)[6], Lanes (&to)[4]) {
      const Lanes even = m[2] + m[3], odd = kPoint * (m[2] - m[3]);
      const Lanes other_even = m[4] + m[5], other_odd = kOther * (m[4] - m[5]);
      to[0] = m[0] + (even + other_even);
      to[1] = odd + other_odd;
      to[2] = 0.5F * even + 2.0F * other_even;
      to[3] = m[1] + (0.5F * odd + 2.0F * other_odd);
    }
  };
  struct OfOutputGradient {
    static constexpr int kFrom = 4, kTo = 6, kAtOnce = 6;
    NF_INLINE static void line(const Lanes (&g)[4], Lanes (&to)[6]) {
      to[0] = g[0];
      to[1] = g[3];
      const Lanes even = g[0] + 0.5F * g[2], odd = kPoint * (g[1] + 0.5F * g[3]);
      to[2] = even + odd;
      to[3] = even - odd;
      const Lanes other_even = g[0] + 2.0F * g[2], other_odd = kOther * (g[1] + 2.0F * g[3]);
      to[4] = other_even + other_odd;
      to[5] = other_even - other_odd;
    }
  };
  struct ToKernelGradient {
    static constexpr int kFrom = 6, kTo = 3, kAtOnce = 3;
    NF_INLINE static void line(const Lanes (&u)[6], Lanes (&to)[3]) {
      const Lanes even = (-2.0F / 3) * (u[2] + u[3]), odd = (-2.0F / 3 * kPoint) * (u[2] - u[3]);
      const Lanes other_even = (1.0F / 6) * (u[4] + u[5]);
      const Lanes other_odd = (kOther / 6) * (u[4] - u[5]);
      to[0] = u[0] + (even + other_even);
      to[1] = odd + other_odd;
      to[2] = u[1] + (0.5F * even + 2.0F * other_even);
    }
  };
};

// The map applied to the columns, then to the rows. load(i, j, to) reads a value; store(i, j,
// value) writes one. As many rows of the result at a time as registers hold: values are read again
// for the next ones.
template <class Map, class Load, class Store>
NF_INLINE inline void transform(const Load& load, const Store& store) {
#pragma GCC unroll 6
  for (int first = 0; first < Map::kTo; first += Map::kAtOnce) {
    Lanes half[Map::kAtOnce][Map::kFrom];
#pragma GCC unroll 6
    for (int j = 0; j < Map::kFrom; ++j) {
      Lanes column[Map::kFrom], mapped[Map::kTo];
#pragma GCC unroll 6
      for (int i = 0; i < Map::kFrom; ++i) load(i, j, column[i]);
      Map::line(column, mapped);
#pragma GCC unroll 6
      for (int i = 0; i < Map::kAtOnce; ++i) half[i][j] = mapped[first + i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < Map::kAtOnce; ++i) {
      Lanes row[Map::kTo];
      Map::line(half[i], row);
#pragma GCC unroll 6
      for (int j = 0; j < Map::kTo; ++j) store(first + i, j, row[j]);
    }
  }
}

}  // namespace nf::model

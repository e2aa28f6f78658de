// The linear maps of Winograd's convolution F(2x2, 3x3) on 16 channels at a time (A. Lavin and
// S. Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308, section 4.1):
//   Y = A^T [(G g G^T) * (B^T d B)] A,
// d a tile of 4 x 4 inputs, g a kernel of 3 x 3, Y 2 x 2 outputs, * element by element. Its
// gradient of g is G^T [(B^T d B) * (A dY A^T)] G.
#pragma once

#include "models/nfnet/lanes.h"

namespace nf::model {

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

// The innermost product of rows_product.cpp and winograd.cpp: a tile of 8 rows and 16 or 32
// columns, summed in registers, in float32 or pairs of bfloat16.
#pragma once

#include <cstdint>

namespace nf::model {

constexpr int64_t kTileRows = 8, kRowLanes = 16;
constexpr int64_t kPanelColumns = 2 * kRowLanes;  // of a panel; the last one may be half as wide

// to[r][c] = bias[c] + sum over i of rows[r][i] panel[i][c] for kTileRows rows, `depth` apart, and
// the columns of one panel [depth][columns]; the result's rows lie `apart` apart. An element is a
// float32, or two bfloat16 that lie side by side along the sum.
template <class Element>
using RowsTile = void (*)(const Element* rows, int64_t depth, const Element* panel,
                          const float* bias, float* to, int64_t apart);

// Of float and uint32_t; the fastest of this processor, for 16 or 32 columns.
template <class Element>
RowsTile<Element> rows_tile(int64_t columns);

}  // namespace nf::model

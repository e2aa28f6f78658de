// Which part of a bucket each rank adds up.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

namespace nf::train {

inline constexpr size_t kSliceAlignment = 16;  // floats: a cache line

// Slice `rank` of n elements: every slice starts at a multiple of kSliceAlignment; the last ones
// may be short or empty.
inline std::pair<size_t, size_t> slice_range(size_t n, int rank, int world) {
  const size_t w = static_cast<size_t>(world), r = static_cast<size_t>(rank);
  const size_t per_rank = (n + w - 1) / w;
  const size_t step = (per_rank + kSliceAlignment - 1) / kSliceAlignment * kSliceAlignment;
  return {std::min(n, r * step), std::min(n, (r + 1) * step)};
}

}  // namespace nf::train

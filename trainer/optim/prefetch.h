// Asks for memory before a loop comes to it. The processor's own prefetchers do not keep up with a
// loop over rows that are read one array after the other: 7 to 10 % of an update that is larger
// than the caches (docs/numbers.md).
#pragma once

#include <cstdint>

#include "core/vector_loop.h"

namespace nf::train {

constexpr int64_t kPrefetchBlock = 128;  // elements

// The block that begins `ahead` elements behind x. It may lie outside of the array: nothing is
// read.
template <class T>
NF_INLINE inline void prefetch_block(const T* x, int64_t ahead) {
  constexpr uintptr_t kLine = 64;
  const uintptr_t begin =
      reinterpret_cast<uintptr_t>(x) + static_cast<uintptr_t>(ahead) * sizeof(T);
  for (uintptr_t at = begin; at < begin + kPrefetchBlock * sizeof(T); at += kLine)
    // NOLINTNEXTLINE(performance-no-int-to-ptr): it may lie behind the array
    __builtin_prefetch(reinterpret_cast<const void*>(at));
}

}  // namespace nf::train

// Whether numbers are finite, for loops that look at what they write.
#pragma once

#include <bit>
#include <cstdint>

namespace nf {

// 0 or 1, without a branch: loops that gather it by `|=` are vectorized.
[[gnu::always_inline]] inline uint32_t not_finite(float x) {
  constexpr uint32_t kExponent = 0x7f80'0000;  // all ones: infinite or NaN
  return (std::bit_cast<uint32_t>(x) & kExponent) == kExponent ? 1u : 0u;
}

}  // namespace nf

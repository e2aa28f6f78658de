// The two inner loops of the resizer, for each instruction set. All levels give the same bits: they
// compute the same sums of 16-bit products in 32-bit integers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace nf::data {

enum class SimdLevel { kPortable, kAvx2, kAvx512 };  // kPortable: what the compiler may assume

// The highest that this processor has.
SimdLevel best_simd_level();

inline constexpr int kResizeTaps = 4;
inline constexpr int kWeightBits = 14;  // weights are Q14 and sum to 2^14
inline constexpr int kRowBits = 6;      // fractional bits between the two passes

// Columns of a window, in output order. All taps lie inside the source row.
struct ResizeColumns {
  std::vector<int32_t> at;      // [n] byte offset of the first tap
  std::vector<int16_t> weight;  // [n][4]
  // For vectors: [n][16], (w0, w1) four times, then (w2, w3) four times. Filled for columns in
  // [wide_begin, wide_end) only, whose 16 bytes from the first tap on lie inside the row.
  std::vector<int16_t> wide;
  size_t wide_begin = 0, wide_end = 0;
};

// One source row of at least four pixels to n columns of three int16; 8 bytes more may be written.
using ResizeRow = void (*)(const uint8_t* row, const ResizeColumns& columns, int16_t* out);
// Four such rows, weighted, to `count` bytes.
using BlendRows = void (*)(const std::array<const int16_t*, kResizeTaps>& rows,
                           const std::array<int16_t, kResizeTaps>& weight, size_t count,
                           uint8_t* out);

struct ResizeKernels {
  ResizeRow row;
  BlendRows blend;
};
// A level above best_simd_level() must not be run.
ResizeKernels resize_kernels(SimdLevel level);

}  // namespace nf::data

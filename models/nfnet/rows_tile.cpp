// See rows_tile.h.
#include "models/nfnet/rows_tile.h"

#include <cstring>

#include "core/host_device.h"
#include "core/vector_loop.h"
#include "models/nfnet/processor.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace nf::model {
namespace {

NF_INLINE inline float multiply_add(float a, float b, float sum) { return sum + a * b; }
NF_INLINE inline float multiply_add(uint32_t a, uint32_t b, float sum) {
  const auto low = [](uint32_t pair) NF_INLINE { return bits_as<float>(pair << 16); };
  const auto high = [](uint32_t pair) NF_INLINE { return bits_as<float>(pair & 0xffff0000U); };
  return (sum + high(a) * high(b)) + low(a) * low(b);
}

template <class Element, int64_t kVectors>
void multiply_anywhere(const Element* rows, int64_t depth, const Element* panel, const float* bias,
                       float* to, int64_t apart) {
  constexpr int64_t kColumns = kVectors * kRowLanes;
  vector_loop([=]() NF_INLINE {
    for (int64_t r = 0; r < kTileRows; ++r) {
      float sums[kColumns];
      for (int64_t c = 0; c < kColumns; ++c) sums[c] = bias[c];
      for (int64_t i = 0; i < depth; ++i)
        for (int64_t c = 0; c < kColumns; ++c)
          sums[c] = multiply_add(rows[r * depth + i], panel[i * kColumns + c], sums[c]);
      std::memcpy(to + r * apart, sums, sizeof sums);
    }
  });
}

#if defined(__x86_64__) && defined(__GNUC__)
template <int64_t kVectors>
[[gnu::target("avx512f"), gnu::always_inline]] inline void start_tile(
    const float* bias, __m512 (&sums)[kTileRows][kVectors]) {
#pragma GCC unroll 8
  for (int64_t r = 0; r < kTileRows; ++r)
#pragma GCC unroll 2
    for (int64_t v = 0; v < kVectors; ++v) sums[r][v] = _mm512_loadu_ps(bias + v * kRowLanes);
}
template <int64_t kVectors>
[[gnu::target("avx512f"), gnu::always_inline]] inline void store_tile(
    const __m512 (&sums)[kTileRows][kVectors], float* to, int64_t apart) {
#pragma GCC unroll 8
  for (int64_t r = 0; r < kTileRows; ++r)
#pragma GCC unroll 2
    for (int64_t v = 0; v < kVectors; ++v)
      _mm512_storeu_ps(to + r * apart + v * kRowLanes, sums[r][v]);
}

template <int64_t kVectors>
[[gnu::target("avx512f")]] void multiply_avx512(const float* rows, int64_t depth,
                                                const float* panel, const float* bias, float* to,
                                                int64_t apart) {
  __m512 sums[kTileRows][kVectors];
  start_tile(bias, sums);
  for (int64_t i = 0; i < depth; ++i) {
    __m512 columns[kVectors];
#pragma GCC unroll 2
    for (int64_t v = 0; v < kVectors; ++v)
      columns[v] = _mm512_loadu_ps(panel + (i * kVectors + v) * kRowLanes);
#pragma GCC unroll 8
    for (int64_t r = 0; r < kTileRows; ++r) {
      const __m512 row = _mm512_set1_ps(rows[r * depth + i]);
#pragma GCC unroll 2
      for (int64_t v = 0; v < kVectors; ++v)
        sums[r][v] = _mm512_fmadd_ps(row, columns[v], sums[r][v]);
    }
  }
  store_tile(sums, to, apart);
}

template <int64_t kVectors>
[[gnu::target("avx512f,avx512bf16")]] void multiply_avx512(const uint32_t* rows, int64_t depth,
                                                           const uint32_t* panel, const float* bias,
                                                           float* to, int64_t apart) {
  __m512 sums[kTileRows][kVectors];
  start_tile(bias, sums);
  for (int64_t i = 0; i < depth; ++i) {
    __m512bh columns[kVectors];
#pragma GCC unroll 2
    for (int64_t v = 0; v < kVectors; ++v)
      columns[v] =
          reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel + (i * kVectors + v) * kRowLanes));
#pragma GCC unroll 8
    for (int64_t r = 0; r < kTileRows; ++r) {
      const auto row =
          reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(rows[r * depth + i])));
#pragma GCC unroll 2
      for (int64_t v = 0; v < kVectors; ++v)
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], row, columns[v]);
    }
  }
  store_tile(sums, to, apart);
}

bool has_instruction(const float*) { return has_avx512(); }
bool has_instruction(const uint32_t*) { return has_avx512_bf16(); }

template <class Element, int64_t kVectors>
RowsTile<Element> best_tile() {
  const RowsTile<Element> own = multiply_avx512<kVectors>;
  return has_instruction(static_cast<const Element*>(nullptr))
             ? own
             : multiply_anywhere<Element, kVectors>;
}
#else
template <class Element, int64_t kVectors>
RowsTile<Element> best_tile() {
  return multiply_anywhere<Element, kVectors>;
}
#endif

}  // namespace

template <>
RowsTile<float> rows_tile<float>(int64_t columns) {
  return columns == kPanelColumns ? best_tile<float, 2>() : best_tile<float, 1>();
}
template <>
RowsTile<uint32_t> rows_tile<uint32_t>(int64_t columns) {
  return columns == kPanelColumns ? best_tile<uint32_t, 2>() : best_tile<uint32_t, 1>();
}

}  // namespace nf::model

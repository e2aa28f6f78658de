// See resize_simd.h.
#include "data_pipeline/resize_simd.h"

#include <algorithm>

#if defined(__x86_64__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12 misfires inside this header
#include <immintrin.h>
#endif

namespace nf::data {
namespace {

constexpr int kRowShift = kWeightBits - kRowBits, kBlendShift = kWeightBits + kRowBits;
constexpr int32_t kRowHalf = 1 << (kRowShift - 1), kBlendHalf = 1 << (kBlendShift - 1);

void plain_columns(const uint8_t* row, const ResizeColumns& columns, size_t begin, size_t end,
                   int16_t* out) {
  for (size_t i = begin; i < end; ++i) {
    const uint8_t* p = row + columns.at[i];
    const int16_t* w = columns.weight.data() + kResizeTaps * i;
    for (size_t c = 0; c < 3; ++c, ++p) {
      const int32_t sum = w[0] * p[0] + w[1] * p[3] + w[2] * p[6] + w[3] * p[9];
      out[3 * i + c] = static_cast<int16_t>((sum + kRowHalf) >> kRowShift);
    }
  }
}

void plain_blend(const std::array<const int16_t*, kResizeTaps>& rows,
                 const std::array<int16_t, kResizeTaps>& weight, size_t begin, size_t end,
                 uint8_t* out) {
  for (size_t k = begin; k < end; ++k) {
    const int32_t sum = weight[0] * rows[0][k] + weight[1] * rows[1][k] + weight[2] * rows[2][k] +
                        weight[3] * rows[3][k];
    out[k] = static_cast<uint8_t>(std::clamp((sum + kBlendHalf) >> kBlendShift, 0, 255));
  }
}

void row_portable(const uint8_t* row, const ResizeColumns& columns, int16_t* out) {
  plain_columns(row, columns, 0, columns.at.size(), out);
}

void blend_portable(const std::array<const int16_t*, kResizeTaps>& rows,
                    const std::array<int16_t, kResizeTaps>& weight, size_t count, uint8_t* out) {
  plain_blend(rows, weight, 0, count, out);
}

#if defined(__x86_64__)

// Bytes r0 g0 b0 r1 g1 b1 ... of four pixels to 16-bit pairs r0 r1, g0 g1, b0 b1 (and 2, 3).
#define NF_PAIRS_01 -1, -1, -1, -1, -1, 5, -1, 2, -1, 4, -1, 1, -1, 3, -1, 0
#define NF_PAIRS_23 -1, -1, -1, -1, -1, 11, -1, 8, -1, 10, -1, 7, -1, 9, -1, 6

__m128i load(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
void store_low(int16_t* to, __m128i v) { _mm_storel_epi64(reinterpret_cast<__m128i*>(to), v); }
int pair(int16_t low, int16_t high) {
  return static_cast<int>(static_cast<uint32_t>(static_cast<uint16_t>(low)) |
                          static_cast<uint32_t>(static_cast<uint16_t>(high)) << 16);
}

[[gnu::target("avx2")]] void row_avx2(const uint8_t* row, const ResizeColumns& columns,
                                      int16_t* out) {
  const __m256i pairs01 = _mm256_broadcastsi128_si256(_mm_set_epi8(NF_PAIRS_01));
  const __m256i pairs23 = _mm256_broadcastsi128_si256(_mm_set_epi8(NF_PAIRS_23));
  const __m256i half = _mm256_set1_epi32(kRowHalf);
  const size_t begin = columns.wide_begin, end = columns.wide_end;
  plain_columns(row, columns, 0, begin, out);
  size_t i = begin;
  for (; i + 2 <= end; i += 2) {
    const __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(load(row + columns.at[i])),
                                              load(row + columns.at[i + 1]), 1);
    const auto* w = reinterpret_cast<const __m256i*>(columns.wide.data() + 16 * i);
    const __m256i first = _mm256_loadu_si256(w), second = _mm256_loadu_si256(w + 1);
    const __m256i w01 = _mm256_permute2x128_si256(first, second, 0x20);
    const __m256i w23 = _mm256_permute2x128_si256(first, second, 0x31);
    __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(_mm256_shuffle_epi8(v, pairs01), w01),
                                   _mm256_madd_epi16(_mm256_shuffle_epi8(v, pairs23), w23));
    sum = _mm256_srai_epi32(_mm256_add_epi32(sum, half), kRowShift);
    sum = _mm256_packs_epi32(sum, sum);
    store_low(out + 3 * i, _mm256_castsi256_si128(sum));
    store_low(out + 3 * i + 3, _mm256_extracti128_si256(sum, 1));
  }
  plain_columns(row, columns, i, columns.at.size(), out);
}

[[gnu::target("avx2")]] void blend_avx2(const std::array<const int16_t*, kResizeTaps>& rows,
                                        const std::array<int16_t, kResizeTaps>& weight,
                                        size_t count, uint8_t* out) {
  const __m256i w01 = _mm256_set1_epi32(pair(weight[0], weight[1]));
  const __m256i w23 = _mm256_set1_epi32(pair(weight[2], weight[3]));
  const __m256i half = _mm256_set1_epi32(kBlendHalf);
  const auto sixteen = [&](size_t k) __attribute__((target("avx2"))) {
    __m256i r[kResizeTaps];
    for (size_t t = 0; t < kResizeTaps; ++t)
      r[t] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[t] + k));
    __m256i low = _mm256_add_epi32(_mm256_madd_epi16(_mm256_unpacklo_epi16(r[0], r[1]), w01),
                                   _mm256_madd_epi16(_mm256_unpacklo_epi16(r[2], r[3]), w23));
    __m256i high = _mm256_add_epi32(_mm256_madd_epi16(_mm256_unpackhi_epi16(r[0], r[1]), w01),
                                    _mm256_madd_epi16(_mm256_unpackhi_epi16(r[2], r[3]), w23));
    low = _mm256_srai_epi32(_mm256_add_epi32(low, half), kBlendShift);
    high = _mm256_srai_epi32(_mm256_add_epi32(high, half), kBlendShift);
    return _mm256_packs_epi32(low, high);
  };
  size_t k = 0;
  for (; k + 32 <= count; k += 32) {
    const __m256i bytes = _mm256_packus_epi16(sixteen(k), sixteen(k + 16));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + k), _mm256_permute4x64_epi64(bytes, 0xD8));
  }
  plain_blend(rows, weight, k, count, out);
}

[[gnu::target("avx512f,avx512bw")]] void row_avx512(const uint8_t* row,
                                                    const ResizeColumns& columns, int16_t* out) {
  const __m512i pairs01 = _mm512_broadcast_i32x4(_mm_set_epi8(NF_PAIRS_01));
  const __m512i pairs23 = _mm512_broadcast_i32x4(_mm_set_epi8(NF_PAIRS_23));
  const __m512i half = _mm512_set1_epi32(kRowHalf);
  // 128-bit quarters 0, 2, 4, 6 and 1, 3, 5, 7 of two registers.
  const __m512i even = _mm512_set_epi64(13, 12, 9, 8, 5, 4, 1, 0);
  const __m512i odd = _mm512_set_epi64(15, 14, 11, 10, 7, 6, 3, 2);
  const size_t begin = columns.wide_begin, end = columns.wide_end;
  plain_columns(row, columns, 0, begin, out);
  size_t i = begin;
  for (; i + 4 <= end; i += 4) {
    const int32_t* at = columns.at.data() + i;
    __m512i v = _mm512_castsi128_si512(load(row + at[0]));
    v = _mm512_inserti32x4(v, load(row + at[1]), 1);
    v = _mm512_inserti32x4(v, load(row + at[2]), 2);
    v = _mm512_inserti32x4(v, load(row + at[3]), 3);
    const int16_t* w = columns.wide.data() + 16 * i;
    const __m512i first = _mm512_loadu_si512(w), second = _mm512_loadu_si512(w + 32);
    const __m512i w01 = _mm512_permutex2var_epi64(first, even, second);
    const __m512i w23 = _mm512_permutex2var_epi64(first, odd, second);
    __m512i sum = _mm512_add_epi32(_mm512_madd_epi16(_mm512_shuffle_epi8(v, pairs01), w01),
                                   _mm512_madd_epi16(_mm512_shuffle_epi8(v, pairs23), w23));
    sum = _mm512_srai_epi32(_mm512_add_epi32(sum, half), kRowShift);
    sum = _mm512_packs_epi32(sum, sum);
    int16_t* to = out + 3 * i;
    store_low(to, _mm512_castsi512_si128(sum));
    store_low(to + 3, _mm512_extracti32x4_epi32(sum, 1));
    store_low(to + 6, _mm512_extracti32x4_epi32(sum, 2));
    store_low(to + 9, _mm512_extracti32x4_epi32(sum, 3));
  }
  plain_columns(row, columns, i, columns.at.size(), out);
}

[[gnu::target("avx512f,avx512bw")]] void blend_avx512(
    const std::array<const int16_t*, kResizeTaps>& rows,
    const std::array<int16_t, kResizeTaps>& weight, size_t count, uint8_t* out) {
  const __m512i w01 = _mm512_set1_epi32(pair(weight[0], weight[1]));
  const __m512i w23 = _mm512_set1_epi32(pair(weight[2], weight[3]));
  const __m512i half = _mm512_set1_epi32(kBlendHalf);
  size_t k = 0;
  for (; k + 32 <= count; k += 32) {
    __m512i r[kResizeTaps];
    for (size_t t = 0; t < kResizeTaps; ++t) r[t] = _mm512_loadu_si512(rows[t] + k);
    __m512i low = _mm512_add_epi32(_mm512_madd_epi16(_mm512_unpacklo_epi16(r[0], r[1]), w01),
                                   _mm512_madd_epi16(_mm512_unpacklo_epi16(r[2], r[3]), w23));
    __m512i high = _mm512_add_epi32(_mm512_madd_epi16(_mm512_unpackhi_epi16(r[0], r[1]), w01),
                                    _mm512_madd_epi16(_mm512_unpackhi_epi16(r[2], r[3]), w23));
    low = _mm512_srai_epi32(_mm512_add_epi32(low, half), kBlendShift);
    high = _mm512_srai_epi32(_mm512_add_epi32(high, half), kBlendShift);
    const __m512i words = _mm512_max_epi16(_mm512_packs_epi32(low, high), _mm512_setzero_si512());
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + k), _mm512_cvtusepi16_epi8(words));
  }
  plain_blend(rows, weight, k, count, out);
}

#endif

}  // namespace

SimdLevel best_simd_level() {
#if defined(__x86_64__)
  static const SimdLevel level =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") ? SimdLevel::kAvx512
      : __builtin_cpu_supports("avx2")                                        ? SimdLevel::kAvx2
                                       : SimdLevel::kPortable;
  return level;
#else
  return SimdLevel::kPortable;
#endif
}

ResizeKernels resize_kernels(SimdLevel level) {
#if defined(__x86_64__)
  if (level == SimdLevel::kAvx512) return {row_avx512, blend_avx512};
  if (level == SimdLevel::kAvx2) return {row_avx2, blend_avx2};
#endif
  (void)level;
  return {row_portable, blend_portable};
}

}  // namespace nf::data

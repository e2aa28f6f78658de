// See rows_product.h. A tile is 8 rows and 16 or 32 columns, summed in registers; the matrix lies
// in panels of as many columns, which stay in the first cache while the rows pass by.
#include "models/nfnet/rows_product.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/check.h"
#include "core/vector_loop.h"
#include "models/nfnet/processor.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace nf::model {
namespace {

constexpr int64_t kRows = 8, kLanes = 16;
constexpr int64_t kPanel = 2 * kLanes;      // columns; the last one may be half as wide
constexpr int64_t kBlock = 8;               // groups of rows that pass by a panel at a time
constexpr int64_t kMostDepth = 512;         // a panel of 64 KiB
constexpr int64_t kMostElements = 1 << 17;  // of the matrix
constexpr int64_t kGrain = 1 << 17;         // products of a task, at least

// Of kRows rows, k apart, with a panel [k][columns]; the result's rows lie n apart.
using Tile = void (*)(const float* rows, int64_t k, const float* panel, const float* bias,
                      float* to, int64_t n);

template <int64_t kVectors>
void multiply_anywhere(const float* rows, int64_t k, const float* panel, const float* bias,
                       float* to, int64_t n) {
  constexpr int64_t kColumns = kVectors * kLanes;
  vector_loop([=]() NF_INLINE {
    for (int64_t r = 0; r < kRows; ++r) {
      float sums[kColumns];
      for (int64_t c = 0; c < kColumns; ++c) sums[c] = bias[c];
      for (int64_t i = 0; i < k; ++i)
        for (int64_t c = 0; c < kColumns; ++c) sums[c] += rows[r * k + i] * panel[i * kColumns + c];
      std::memcpy(to + r * n, sums, sizeof sums);
    }
  });
}

#if defined(__x86_64__) && defined(__GNUC__)
template <int64_t kVectors>
[[gnu::target("avx512f")]] void multiply_avx512(const float* rows, int64_t k, const float* panel,
                                                const float* bias, float* to, int64_t n) {
  __m512 sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int64_t r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int64_t v = 0; v < kVectors; ++v) sums[r][v] = _mm512_loadu_ps(bias + v * kLanes);
  for (int64_t i = 0; i < k; ++i) {
    __m512 columns[kVectors];
#pragma GCC unroll 2
    for (int64_t v = 0; v < kVectors; ++v)
      columns[v] = _mm512_loadu_ps(panel + (i * kVectors + v) * kLanes);
#pragma GCC unroll 8
    for (int64_t r = 0; r < kRows; ++r) {
      const __m512 row = _mm512_set1_ps(rows[r * k + i]);
#pragma GCC unroll 2
      for (int64_t v = 0; v < kVectors; ++v)
        sums[r][v] = _mm512_fmadd_ps(row, columns[v], sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int64_t r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int64_t v = 0; v < kVectors; ++v) _mm512_storeu_ps(to + r * n + v * kLanes, sums[r][v]);
}
template <int64_t kVectors>
Tile best_tile() {
  return has_avx512() ? multiply_avx512<kVectors> : multiply_anywhere<kVectors>;
}
#else
template <int64_t kVectors>
Tile best_tile() {
  return multiply_anywhere<kVectors>;
}
#endif

// [k, n] of any strides -> panels [k][columns], one behind the other.
std::vector<float> panels_of(const at::Tensor& matrix) {
  const int64_t k = matrix.size(0), n = matrix.size(1);
  const int64_t down = matrix.stride(0), right = matrix.stride(1);
  const float* const from = matrix.const_data_ptr<float>();
  std::vector<float> out(static_cast<size_t>(k * n));
  for (int64_t first = 0; first < n; first += kPanel) {
    const int64_t columns = std::min(kPanel, n - first);
    float* const to = out.data() + first * k;
    for (int64_t block = 0; block < k; block += kLanes)  // few lines of both at a time
      for (int64_t c = 0; c < columns; ++c)
        for (int64_t i = block; i < std::min(k, block + kLanes); ++i)
          to[i * columns + c] = from[i * down + (first + c) * right];
  }
  return out;
}

}  // namespace

bool rows_product_is_faster(const at::Tensor& rows, int64_t n) {
  const int64_t k = rows.size(1);
  return rows.is_cpu() && rows.scalar_type() == at::kFloat && has_avx512() && !is_intel() &&
         rows.size(0) % kRows == 0 && n % kLanes == 0 && k <= kMostDepth && k * n <= kMostElements;
}

at::Tensor rows_product(const at::Tensor& rows, const at::Tensor& matrix, const at::Tensor& bias) {
  const int64_t m = rows.size(0), k = rows.size(1), n = matrix.size(1);
  for (const at::Tensor& t : {rows, matrix})
    NF_CHECK(t.is_cpu() && t.scalar_type() == at::kFloat && t.dim() == 2);
  NF_CHECK(rows.is_contiguous() && matrix.size(0) == k && m % kRows == 0 && n % kLanes == 0);
  NF_CHECK(!bias.defined() || (bias.is_contiguous() && bias.numel() == n));
  const std::vector<float> panels = panels_of(matrix), zeros(static_cast<size_t>(n));
  at::Tensor out = at::empty({m, n}, rows.options());
  const float* const from = rows.const_data_ptr<float>();
  const float* const added = bias.defined() ? bias.const_data_ptr<float>() : zeros.data();
  float* const to = out.mutable_data_ptr<float>();
  const Tile whole = best_tile<2>(), half = best_tile<1>();
  const int64_t grain = std::max<int64_t>(1, kGrain / (kRows * k * n));
  at::parallel_for(0, m / kRows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block += kBlock)
      for (int64_t first = 0; first < n; first += kPanel)
        for (int64_t group = block; group < std::min(end, block + kBlock); ++group)
          (n - first >= kPanel ? whole : half)(from + group * kRows * k, k,
                                               panels.data() + first * k, added + first,
                                               to + group * kRows * n + first, n);
  });
  return out;
}

}  // namespace nf::model

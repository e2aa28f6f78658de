// See rows_product.h. The matrix lies in panels of as many columns as a tile has, which stay in the
// first cache while the rows pass by.
#include "models/nfnet/rows_product.h"

#include <algorithm>
#include <vector>

#include "core/check.h"
#include "core/vector_loop.h"
#include "models/nfnet/lanes.h"
#include "models/nfnet/processor.h"
#include "models/nfnet/rows_tile.h"
#include "models/nfnet/shared_for.h"

namespace nf::model {
namespace {

constexpr int64_t kRows = kTileRows, kLanes = kRowLanes, kPanel = kPanelColumns;
constexpr int64_t kBlock = 8;               // groups of rows that pass by a panel at a time
constexpr int64_t kMostDepth = 512;         // a panel of 64 KiB
constexpr int64_t kMostElements = 1 << 17;  // of the matrix
constexpr int64_t kGrain = 1 << 17;         // products of a task, at least
constexpr int64_t kPanelGrain = 1 << 13;    // elements of a task that makes panels

// [k, n] of any strides -> panels [k][columns], one behind the other.
void make_panels(const at::Tensor& matrix, float* to) {
  const int64_t k = matrix.size(0), n = matrix.size(1);
  const int64_t down = matrix.stride(0), right = matrix.stride(1);
  const float* const from = matrix.const_data_ptr<float>();
  shared_for(n / kLanes, std::max<int64_t>(1, kPanelGrain / (kLanes * k)),
             [=](int64_t begin, int64_t end) {
               vector_loop([=]() NF_INLINE {
                 for (int64_t c = begin * kLanes; c < end * kLanes; c += kLanes) {
                   const int64_t panel = c / kPanel * kPanel, columns = std::min(kPanel, n - panel);
                   float* const out = to + panel * k + c - panel;
                   int64_t i = 0;
                   for (; down == 1 && i + kLanes <= k; i += kLanes) {
                     Lanes square[kLanes];
#pragma GCC unroll 16
                     for (int64_t l = 0; l < kLanes; ++l)
                       load_lanes(from + i + (c + l) * right, square[l]);
                     transpose(square);
#pragma GCC unroll 16
                     for (int64_t l = 0; l < kLanes; ++l)
                       __builtin_memcpy(out + (i + l) * columns, &square[l], sizeof square[l]);
                   }
                   for (; i < k; ++i)
                     for (int64_t l = 0; l < kLanes; ++l)
                       out[i * columns + l] = from[i * down + (c + l) * right];
                 }
               });
             });
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
  const at::Tensor panels = at::empty({k * n}, rows.options());
  make_panels(matrix, panels.mutable_data_ptr<float>());
  const float* const first_panel = panels.const_data_ptr<float>();
  const std::vector<float> zeros(static_cast<size_t>(n));
  at::Tensor out = at::empty({m, n}, rows.options());
  const float* const from = rows.const_data_ptr<float>();
  const float* const added = bias.defined() ? bias.const_data_ptr<float>() : zeros.data();
  float* const to = out.mutable_data_ptr<float>();
  const RowsTile<float> whole = rows_tile<float>(kPanel), half = rows_tile<float>(kLanes);
  const int64_t grain = std::max(kBlock, kGrain / (kRows * k * n));
  shared_for(m / kRows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block += kBlock)
      for (int64_t first = 0; first < n; first += kPanel)
        for (int64_t group = block; group < std::min(end, block + kBlock); ++group)
          (n - first >= kPanel ? whole : half)(from + group * kRows * k, k, first_panel + first * k,
                                               added + first, to + group * kRows * n + first, n);
  });
  return out;
}

}  // namespace nf::model

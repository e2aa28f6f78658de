// See few_rows.h. Images are taken eight at a time, the last ones with zeros beside them, and a
// matrix's columns sixteen at a time, a vector.
#include "models/nfnet/few_rows.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "core/check.h"
#include "core/vector_loop.h"

namespace nf::model {
namespace {

constexpr int64_t kMost = 16;        // images; with more a general product wins
constexpr int64_t kImages = 8;       // at a time
constexpr int64_t kGrain = 1 << 16;  // elements of the matrix a task takes at least
constexpr int64_t kBlockRows = 16;   // of the matrix, whose products are summed in registers
constexpr int64_t kLanes = 16;
using Vector [[gnu::vector_size(kLanes * sizeof(float))]] = float;

int64_t groups_of(int64_t images) { return (images + kImages - 1) / kImages; }

// x [B, n] -> [groups, n, 8]: a column's values side by side.
std::vector<float> columns_of(const at::Tensor& x) {
  const int64_t images = x.size(0), n = x.size(1);
  std::vector<float> out(static_cast<size_t>(groups_of(images) * n * kImages));
  const float* const from = x.const_data_ptr<float>();
  for (int64_t b = 0; b < images; ++b)
    for (int64_t i = 0; i < n; ++i)
      out[static_cast<size_t>((b / kImages * n + i) * kImages + b % kImages)] = from[b * n + i];
  return out;
}

// x [B, n] -> [groups * 8, n rounded up to whole vectors].
std::vector<float> rows_of(const at::Tensor& x, int64_t width) {
  const int64_t images = x.size(0), n = x.size(1);
  std::vector<float> out(static_cast<size_t>(groups_of(images) * kImages * width));
  const float* const from = x.const_data_ptr<float>();
  for (int64_t b = 0; b < images; ++b) std::copy_n(from + b * n, n, out.data() + b * width);
  return out;
}

int64_t whole_vectors(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// to[r * 8 + b] = sum over i of w[r][i] x[b][i]: kRows rows w, n apart, and eight rows x, `width`
// apart.
template <int64_t kRows>
NF_INLINE inline void dot_products(const float* w, int64_t n, const float* x, int64_t width,
                                   float* to) {
  Vector sums[kRows][kImages] = {};
  const int64_t whole = n / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    Vector weights[kRows];
    for (int64_t r = 0; r < kRows; ++r)
      __builtin_memcpy(&weights[r], w + r * n + i, sizeof weights[r]);
    for (int64_t b = 0; b < kImages; ++b) {
      Vector values;
      __builtin_memcpy(&values, x + b * width + i, sizeof values);
      for (int64_t r = 0; r < kRows; ++r) sums[r][b] += weights[r] * values;
    }
  }
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t b = 0; b < kImages; ++b) {
      float total = 0;
      for (int64_t i = whole; i < n; ++i) total += w[r * n + i] * x[b * width + i];
      for (int64_t l = 0; l < kLanes; ++l) total += sums[r][b][l];
      to[r * kImages + b] = total;
    }
}

// to[b][i] += sum over `rows` of g[row][b] w[row][i] for the vector of columns from i on; rows of w
// lie n apart, those of `to` width.
NF_INLINE inline void add_products(const float* w, int64_t n, int64_t rows, const float* g,
                                   float* to, int64_t width, int64_t columns) {
  Vector sums[kImages];
  for (int64_t b = 0; b < kImages; ++b) __builtin_memcpy(&sums[b], to + b * width, sizeof sums[b]);
  for (int64_t r = 0; r < rows; ++r) {
    Vector weights = {};
    if (columns == kLanes)
      __builtin_memcpy(&weights, w + r * n, sizeof weights);
    else
      for (int64_t l = 0; l < columns; ++l) weights[l] = w[r * n + l];
    for (int64_t b = 0; b < kImages; ++b) sums[b] += g[r * kImages + b] * weights;
  }
  for (int64_t b = 0; b < kImages; ++b) __builtin_memcpy(to + b * width, &sums[b], sizeof sums[b]);
}

// to[r][i] = sum over b of g[r][b] x[b][i], added to what is there or not: kRows rows of `to` and
// of eight g, and eight rows x of n.
template <int64_t kRows>
NF_INLINE inline void outer_product(const float* g, const float* x, int64_t n, bool add,
                                    float* to) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Vector sums[kRows] = {};
    if (add)
      for (int64_t r = 0; r < kRows; ++r)
        __builtin_memcpy(&sums[r], to + r * n + i, sizeof sums[r]);
    for (int64_t b = 0; b < kImages; ++b) {
      Vector values;
      __builtin_memcpy(&values, x + b * n + i, sizeof values);
      for (int64_t r = 0; r < kRows; ++r) sums[r] += g[r * kImages + b] * values;
    }
    for (int64_t r = 0; r < kRows; ++r) __builtin_memcpy(to + r * n + i, &sums[r], sizeof sums[r]);
  }
  for (; i < n; ++i)
    for (int64_t r = 0; r < kRows; ++r) {
      float sum = add ? to[r * n + i] : 0;
      for (int64_t b = 0; b < kImages; ++b) sum += g[r * kImages + b] * x[b * n + i];
      to[r * n + i] = sum;
    }
}

void check(const at::Tensor& rows, const at::Tensor& matrix, int64_t shared) {
  NF_CHECK(are_few_rows(rows) && matrix.is_cpu() && matrix.scalar_type() == at::kFloat);
  NF_CHECK(rows.is_contiguous() && matrix.is_contiguous() && rows.size(1) == shared);
}

int64_t tasks_grain(int64_t elements_each) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, elements_each));
}

}  // namespace

bool are_few_rows(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && x.size(0) <= kMost;
}

at::Tensor few_rows_linear(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) {
  const int64_t images = x.size(0), n = w.size(1), outputs = w.size(0), width = whole_vectors(n);
  check(x, w, n);
  const std::vector<float> rows = rows_of(x, width);
  at::Tensor out = at::empty({images, outputs}, x.options());
  const float* const wp = w.const_data_ptr<float>();
  const float* const bias = b.const_data_ptr<float>();
  float* const op = out.mutable_data_ptr<float>();
  at::parallel_for(0, outputs, tasks_grain(n), [&](int64_t begin, int64_t end) {
    for (int64_t first = 0; first < images; first += kImages) {
      const float* const xp = rows.data() + first * width;
      const int64_t count = std::min(kImages, images - first);
      vector_loop([=]() NF_INLINE {
        constexpr int64_t kTogether = 3;
        float sums[kTogether * kImages];
        for (int64_t o = begin, taken = 1; o < end; o += taken) {
          taken = end - o >= kTogether ? kTogether : 1;
          if (taken > 1)
            dot_products<kTogether>(wp + o * n, n, xp, width, sums);
          else
            dot_products<1>(wp + o * n, n, xp, width, sums);
          for (int64_t r = 0; r < taken; ++r)
            for (int64_t i = 0; i < count; ++i)
              op[(first + i) * outputs + o + r] = sums[r * kImages + i] + bias[o + r];
        }
      });
    }
  });
  return out;
}

at::Tensor few_rows_of_input(const at::Tensor& g, const at::Tensor& w) {
  const int64_t images = g.size(0), n = w.size(1), outputs = w.size(0), width = whole_vectors(n);
  check(g, w, outputs);
  const std::vector<float> columns = columns_of(g);
  std::vector<float> sums(static_cast<size_t>(groups_of(images) * kImages * width));
  const float* const wp = w.const_data_ptr<float>();
  at::parallel_for(
      0, width / kLanes, tasks_grain(outputs * kLanes), [&](int64_t begin, int64_t end) {
        for (int64_t group = 0; group < groups_of(images); ++group) {
          const float* const gp = columns.data() + group * outputs * kImages;
          float* const to = sums.data() + group * kImages * width;
          vector_loop([=]() NF_INLINE {
            for (int64_t o = 0; o < outputs; o += kBlockRows)
              for (int64_t i = begin * kLanes; i < std::min(end * kLanes, n); i += kLanes)
                add_products(wp + o * n + i, n, std::min(kBlockRows, outputs - o), gp + o * kImages,
                             to + i, width, std::min(kLanes, n - i));
          });
        }
      });
  at::Tensor out = at::empty({images, n}, g.options());
  for (int64_t b = 0; b < images; ++b)
    std::copy_n(sums.data() + b * width, n, out.mutable_data_ptr<float>() + b * n);
  return out;
}

at::Tensor few_rows_of_weight(const at::Tensor& g, const at::Tensor& x) {
  const int64_t images = g.size(0), outputs = g.size(1), n = x.size(1);
  check(g, x, outputs);
  NF_CHECK(x.size(0) == images);
  at::Tensor out = at::empty({outputs, n}, g.options());
  const std::vector<float> columns = columns_of(g), rows = rows_of(x, n);
  float* const op = out.mutable_data_ptr<float>();
  at::parallel_for(0, outputs, tasks_grain(n), [&](int64_t begin, int64_t end) {
    for (int64_t group = 0; group < groups_of(images); ++group) {
      const float* const gp = columns.data() + group * outputs * kImages;
      const float* const xp = rows.data() + group * kImages * n;
      vector_loop([=]() NF_INLINE {
        int64_t o = begin;
        for (; o + 4 <= end; o += 4)
          outer_product<4>(gp + o * kImages, xp, n, group > 0, op + o * n);
        for (; o < end; ++o) outer_product<1>(gp + o * kImages, xp, n, group > 0, op + o * n);
      });
    }
  });
  return out;
}

}  // namespace nf::model

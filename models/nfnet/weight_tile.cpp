// See weight_tile.h.
#include "models/nfnet/weight_tile.h"

#include "models/nfnet/processor.h"
#include "models/nfnet/shared_for.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace nf::model {
namespace {

// Where a processor's own instructions are missing.
template <class Type>
void multiply_anywhere(const typename Type::Element* g, const typename Type::Element* x, Runs runs,
                       int64_t stride, bool add, float* c) {
  constexpr int64_t kInputs = Type::kInputs;
  vector_loop([=]() NF_INLINE {
    for (int64_t o = 0; o < kTileOutputs; ++o) {
      float sums[kInputs] = {};
      for (size_t run = 0; run < runs.size(); ++run)
        for (int64_t k = 0; k < runs[run].count; ++k) {
          const auto w = g[(runs[run].g + k) * kTileOutputs + o];
          const auto* const v = x + (runs[run].x + k * stride) * kInputs;
          for (int64_t i = 0; i < kInputs; ++i) sums[i] = Type::product(w, v[i], sums[i]);
        }
      float* const to = c + o * kInputs;
      for (int64_t i = 0; i < kInputs; ++i) to[i] = add ? to[i] + sums[i] : sums[i];
    }
  });
}

#if defined(__x86_64__) && defined(__GNUC__)
[[gnu::target("avx512f,avx512bf16")]] void multiply_avx512(const uint32_t* g, const uint32_t* x,
                                                           Runs runs, int64_t stride, bool add,
                                                           float* c) {
  constexpr int64_t kInputs = Bfloat16::kInputs, kAtOnce = 8;
  for (int64_t first = 0; first < kTileOutputs; first += kAtOnce) {
    __m512 sums[kAtOnce][2];
#pragma GCC unroll 8
    for (int64_t o = 0; o < kAtOnce; ++o) sums[o][0] = sums[o][1] = _mm512_setzero_ps();
    for (const Run& run : runs) {
      const uint32_t* w = g + run.g * kTileOutputs + first;
      const uint32_t* v = x + run.x * kInputs;
      for (int64_t k = 0; k < run.count; ++k, w += kTileOutputs, v += stride * kInputs) {
        const auto left = reinterpret_cast<__m512bh>(_mm512_loadu_si512(v));
        const auto right = reinterpret_cast<__m512bh>(_mm512_loadu_si512(v + kTileLanes));
#pragma GCC unroll 8
        for (int64_t o = 0; o < kAtOnce; ++o) {
          const auto both = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(w[o])));
          sums[o][0] = _mm512_dpbf16_ps(sums[o][0], both, left);
          sums[o][1] = _mm512_dpbf16_ps(sums[o][1], both, right);
        }
      }
    }
    float* const to = c + first * kInputs;
#pragma GCC unroll 8
    for (int64_t o = 0; o < kAtOnce; ++o)
      for (int64_t half = 0; half < 2; ++half) {
        float* const at = to + o * kInputs + half * kTileLanes;
        const __m512 sum = sums[o][half];
        _mm512_storeu_ps(at, add ? _mm512_add_ps(_mm512_loadu_ps(at), sum) : sum);
      }
  }
}

[[gnu::target("avx512f")]] void multiply_avx512(const float* g, const float* x, Runs runs,
                                                int64_t stride, bool add, float* c) {
  static_assert(Float32::kInputs == kTileLanes);
  __m512 sums[kTileOutputs];
#pragma GCC unroll 16
  for (int64_t o = 0; o < kTileOutputs; ++o) sums[o] = _mm512_setzero_ps();
  for (const Run& run : runs) {
    const float* w = g + run.g * kTileOutputs;
    const float* v = x + run.x * kTileLanes;
    for (int64_t k = 0; k < run.count; ++k, w += kTileOutputs, v += stride * kTileLanes) {
      const __m512 inputs = _mm512_loadu_ps(v);
#pragma GCC unroll 16
      for (int64_t o = 0; o < kTileOutputs; ++o)
        sums[o] = _mm512_fmadd_ps(_mm512_set1_ps(w[o]), inputs, sums[o]);
    }
  }
#pragma GCC unroll 16
  for (int64_t o = 0; o < kTileOutputs; ++o) {
    float* const at = c + o * kTileLanes;
    _mm512_storeu_ps(at, add ? _mm512_add_ps(_mm512_loadu_ps(at), sums[o]) : sums[o]);
  }
}

#else
void multiply_avx512(const uint32_t* g, const uint32_t* x, Runs runs, int64_t stride, bool add,
                     float* c) {
  multiply_anywhere<Bfloat16>(g, x, runs, stride, add, c);
}
void multiply_avx512(const float* g, const float* x, Runs runs, int64_t stride, bool add,
                     float* c) {
  multiply_anywhere<Float32>(g, x, runs, stride, add, c);
}
#endif

}  // namespace

void Bfloat16::multiply(const Element* g, const Element* x, Runs runs, int64_t stride, bool add,
                        float* c) {
  has_avx512_bf16() ? multiply_avx512(g, x, runs, stride, add, c)
                    : multiply_anywhere<Bfloat16>(g, x, runs, stride, add, c);
}

void add_parts(float* sums, int64_t n, int64_t parts) {
  constexpr int64_t kGrain = 4096;
  shared_for(n, kGrain, [=](int64_t begin, int64_t end) {
    vector_loop([=]() NF_INLINE {
      for (int64_t part = 1; part < parts; ++part)
        for (int64_t i = begin; i < end; ++i) sums[i] += sums[part * n + i];
    });
  });
}

void Float32::multiply(const Element* g, const Element* x, Runs runs, int64_t stride, bool add,
                       float* c) {
  has_avx512() ? multiply_avx512(g, x, runs, stride, add, c)
               : multiply_anywhere<Float32>(g, x, runs, stride, add, c);
}

}  // namespace nf::model

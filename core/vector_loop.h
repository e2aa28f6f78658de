// A loop compiled once for each instruction set that matters and run in the best one this processor
// has. With -ffp-contract=off (the project's setting) a loop without reductions gives the same bits
// in all of them; __builtin_fmaf too, which is an instruction in all but the baseline.
#pragma once

#define NF_INLINE __attribute__((always_inline))

namespace nf {

#if defined(__x86_64__) && defined(__GNUC__)
namespace detail {

template <class Loop>
[[gnu::target("avx2,fma")]] void run_avx2(const Loop& loop) {
  loop();
}
template <class Loop>
[[gnu::target("avx512f,avx512vl,avx512dq,avx512bw")]] void run_avx512(const Loop& loop) {
  loop();
}

enum class Vectors { kBaseline, kAvx2, kAvx512 };
inline Vectors best_vectors() {
  static const Vectors best = [] {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
      return Vectors::kAvx512;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? Vectors::kAvx2
                                                                           : Vectors::kBaseline;
  }();
  return best;
}

}  // namespace detail

// `loop` must be a lambda marked NF_INLINE that calls nothing which is not inlined:
//   vector_loop([=]() NF_INLINE { for (...) y[i] = f(x[i]); });
template <class Loop>
void vector_loop(const Loop& loop) {
  switch (detail::best_vectors()) {
    case detail::Vectors::kAvx512:
      return detail::run_avx512(loop);
    case detail::Vectors::kAvx2:
      return detail::run_avx2(loop);
    case detail::Vectors::kBaseline:
      return loop();
  }
}
#else
template <class Loop>
void vector_loop(const Loop& loop) {
  loop();
}
#endif

}  // namespace nf

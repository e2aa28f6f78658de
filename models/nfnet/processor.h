// What the processor has that decides which of several ways to multiply is the fastest.
#pragma once

namespace nf::model {

#if defined(__x86_64__) && defined(__GNUC__)
inline bool has_avx512() { return __builtin_cpu_supports("avx512f"); }
inline bool has_avx512_bf16() { return __builtin_cpu_supports("avx512bf16"); }
#if defined(__clang__) && __clang_major__ < 17
inline bool has_amx_bf16() { return false; }  // a name that older clangs, and their tidy, reject
#else
inline bool has_amx_bf16() { return __builtin_cpu_supports("amx-bf16"); }
#endif
// MKL, which multiplies for LibTorch, runs code for AVX2 on other makers' processors.
inline bool is_intel() { return __builtin_cpu_is("intel"); }
#else
inline bool has_avx512() { return false; }
inline bool has_avx512_bf16() { return false; }
inline bool has_amx_bf16() { return false; }
inline bool is_intel() { return false; }
#endif

}  // namespace nf::model

// Loops that are compiled a second time for BMI2, where a shift by a variable costs one operation
// instead of three. Both copies compute the same integers.
#pragma once

namespace nf::data {

#if defined(__x86_64__)
#define NF_BMI2 [[gnu::target("bmi,bmi2")]]
inline bool has_bmi2() {
  static const bool has = __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  return has;
}
#else
#define NF_BMI2
inline bool has_bmi2() { return false; }
#endif

}  // namespace nf::data

// What benchmarks have in common: the middle of what was measured, so that one slow round moves no
// figure, and CPU time, which other programs on the machine hardly move.
#pragma once

#include <algorithm>
#include <cstddef>
#include <ctime>
#include <vector>

namespace nf::bench {

// Mean of the middle two where their number is even; `values` must not be empty.
inline double median(std::vector<double> values) {
  const size_t half = values.size() / 2;
  std::sort(values.begin(), values.end());
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// Of all threads of this process so far.
inline double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

}  // namespace nf::bench

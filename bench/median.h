// The middle of what a benchmark measured, so that one slow round moves no figure.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace nf::bench {

// Mean of the middle two where their number is even; `values` must not be empty.
inline double median(std::vector<double> values) {
  const size_t half = values.size() / 2;
  std::sort(values.begin(), values.end());
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace nf::bench

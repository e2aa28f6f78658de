// Shrinking with a kernel stretched by the factor of shrinking, so that every source pixel counts:
// the antialiased choice of resize.h, in the same fixed point.
#pragma once

#include <cstdint>
#include <vector>

#include "data_pipeline/box.h"

namespace nf::data {

struct ResizeSpec;

class AntialiasResizer {
 public:
  // The whole source box must be in `pixels`. An axis that does not shrink has the plain kernel.
  void run(const PixelView& pixels, const ResizeSpec& spec, uint8_t* out);

 private:
  std::vector<int16_t> rows_;
  std::vector<int32_t> sums_;
};

}  // namespace nf::data

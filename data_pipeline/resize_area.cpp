// See resize_area.h. In units of 1 / (in x out) of an axis, input pixel i covers [i out, (i + 1)
// out) and output pixel j covers [j in, (j + 1) in): every overlap is an integer.
#include "data_pipeline/resize_area.h"

#include <algorithm>
#include <vector>

#include "core/check.h"

namespace nf::data {
namespace {

// Calls use(j, overlap) for the output pixels that input pixel i overlaps.
template <class Use>
void for_overlaps(int64_t i, int64_t in, int64_t out, const Use& use) {
  const int64_t begin = i * out, end = begin + out;
  for (int64_t j = begin / in; j < out && j * in < end; ++j) {
    use(j, std::min(end, (j + 1) * in) - std::max(begin, j * in));
  }
}

}  // namespace

void resize_area(const Image& in, int width, int height, Image& out) {
  NF_CHECK(&in != &out && width >= 1 && width <= in.width && height >= 1 && height <= in.height);
  const size_t row = size_t{3} * static_cast<size_t>(width);
  std::vector<uint64_t> sums(row * static_cast<size_t>(height), 0), line(row);
  for (int64_t y = 0; y < in.height; ++y) {
    std::fill(line.begin(), line.end(), 0);
    const uint8_t* pixel = in.rgb.data() + 3 * y * in.width;
    for (int64_t x = 0; x < in.width; ++x, pixel += 3) {
      for_overlaps(x, in.width, width, [&](int64_t j, int64_t overlap) {
        for (int c = 0; c < 3; ++c)
          line[static_cast<size_t>(3 * j + c)] += static_cast<uint64_t>(overlap) * pixel[c];
      });
    }
    for_overlaps(y, in.height, height, [&](int64_t j, int64_t overlap) {
      uint64_t* sum = sums.data() + static_cast<size_t>(j) * row;
      for (size_t k = 0; k < row; ++k) sum[k] += static_cast<uint64_t>(overlap) * line[k];
    });
  }
  const uint64_t area = static_cast<uint64_t>(in.width) * static_cast<uint64_t>(in.height);
  out.width = width;
  out.height = height;
  out.rgb.resize(sums.size());
  for (size_t k = 0; k < sums.size(); ++k)
    out.rgb[k] = static_cast<uint8_t>((sums[k] + area / 2) / area);
}

void size_with_short_side(int short_side, int& width, int& height) {
  const int64_t shorter = std::min(width, height), longer = std::max(width, height);
  if (shorter <= short_side) return;
  const auto scaled = static_cast<int>((longer * short_side + shorter / 2) / shorter);
  const bool wide = width >= height;
  width = wide ? scaled : short_side;
  height = wide ? short_side : scaled;
}

}  // namespace nf::data

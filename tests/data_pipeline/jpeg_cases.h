// JPEGs of every kind that the part-wise decoder may meet, drawn by arithmetic: any sampling
// factors, coding, restart interval, orientation and quality.
#pragma once

#include <string>
#include <vector>

#include "core/rng.h"
#include "data_pipeline/box.h"
#include "tests/data_pipeline/store_fixtures.h"

namespace nf::test {

struct JpegCase {
  std::string name;
  int width = 0, height = 0;
  int components = 3;                                  // 1: gray
  int h[3] = {1, 1, 1}, v[3] = {1, 1, 1};              // sampling factors
  bool progressive = false, arithmetic = false;        // neither: sequential, Huffman
  bool optimized = false, rgb = false, scans = false;  // scans: one a component
  int restart = 0;                                     // MCUs
  int quality = 90, orientation = 1;
  uint64_t seed = 1;
};

ByteVector draw_jpeg_case(const JpegCase& c);

// Case number `index` of an endless list that walks through all sampling factors.
JpegCase choose_case(uint64_t index, int max_side);
int sampling_kinds();

// A crop of an image: every border, single pixels and the whole are frequent.
data::Box choose_crop(PositionRng& rng, int64_t width, int64_t height);

}  // namespace nf::test

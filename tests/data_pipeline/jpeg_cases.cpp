// See jpeg_cases.h.
#include "tests/data_pipeline/jpeg_cases.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "data_pipeline/jpeg_errors.h"
#include "tests/data_pipeline/jpeg_memory.h"

namespace nf::test {
namespace {

struct Sampling {
  const char* name;
  int components, h[3], v[3];
};

constexpr std::array kSamplings = {Sampling{"444", 3, {1, 1, 1}, {1, 1, 1}},
                                   Sampling{"422", 3, {2, 1, 1}, {1, 1, 1}},
                                   Sampling{"420", 3, {2, 1, 1}, {2, 1, 1}},
                                   Sampling{"440", 3, {1, 1, 1}, {2, 1, 1}},
                                   Sampling{"411", 3, {4, 1, 1}, {1, 1, 1}},
                                   Sampling{"410", 3, {4, 1, 1}, {2, 1, 1}},
                                   Sampling{"gray", 1, {1, 1, 1}, {1, 1, 1}},
                                   Sampling{"gray 2x2", 1, {2, 1, 1}, {2, 1, 1}},
                                   Sampling{"441", 3, {1, 1, 1}, {4, 1, 1}},
                                   Sampling{"3x1", 3, {3, 1, 1}, {1, 1, 1}},
                                   Sampling{"1x3", 3, {1, 1, 1}, {3, 1, 1}},
                                   Sampling{"3x2", 3, {3, 1, 1}, {2, 1, 1}},
                                   Sampling{"mixed", 3, {2, 2, 1}, {2, 1, 2}},
                                   Sampling{"4x2, 2x1, 1x1", 3, {4, 2, 1}, {1, 1, 1}},
                                   Sampling{"small luma", 3, {1, 2, 2}, {1, 2, 1}},
                                   Sampling{"doubled 444", 3, {2, 2, 2}, {1, 1, 1}},
                                   Sampling{"doubled 422", 3, {2, 1, 1}, {2, 2, 2}}};

void set_coding(jpeg_compress_struct& cinfo, const JpegCase& c, jpeg_scan_info* scans) {
  if (c.progressive) jpeg_simple_progression(&cinfo);
  if (c.arithmetic) cinfo.arith_code = TRUE;
  if (c.optimized && !c.arithmetic) cinfo.optimize_coding = TRUE;
  if (c.scans && !c.progressive) {
    for (int i = 0; i < c.components; ++i) scans[i] = {1, {i, 0, 0, 0}, 0, 63, 0, 0};
    cinfo.scan_info = scans;
    cinfo.num_scans = c.components;
  }
  cinfo.restart_interval = static_cast<unsigned>(c.restart);
}

}  // namespace

ByteVector draw_jpeg_case(const JpegCase& c) {
  const data::Image picture = draw_picture(c.width, c.height, c.seed);
  JpegMemory jpeg(c.width, c.height, 3, JCS_RGB, c.quality);
  jpeg_compress_struct& cinfo = jpeg.cinfo;
  if (c.components == 1) jpeg_set_colorspace(&cinfo, JCS_GRAYSCALE);
  if (c.rgb && c.components == 3) jpeg_set_colorspace(&cinfo, JCS_RGB);
  for (int i = 0; i < c.components; ++i) {
    cinfo.comp_info[i].h_samp_factor = c.h[i];
    cinfo.comp_info[i].v_samp_factor = c.v[i];
  }
  jpeg_scan_info scans[3];
  set_coding(cinfo, c, scans);
  const ByteVector bytes =
      jpeg.write([&](size_t y) { return picture.rgb.data() + size_t{3} * y * cinfo.image_width; });
  return c.orientation == 1 ? bytes : with_exif(bytes, exif_block(c.orientation, c.seed % 2 == 0));
}

int sampling_kinds() { return static_cast<int>(kSamplings.size()); }

JpegCase choose_case(uint64_t index, int max_side) {
  PositionRng rng(11, Stream::kTest, index);
  const auto below = [&](int n) { return static_cast<int>(rng.below(static_cast<uint64_t>(n))); };
  const Sampling& s = kSamplings[index % kSamplings.size()];
  JpegCase c;
  c.name = s.name;
  c.components = s.components;
  std::copy_n(s.h, 3, c.h);
  std::copy_n(s.v, 3, c.v);
  const int side = below(4) == 0 ? std::min(20, max_side) : max_side;
  c.width = 1 + below(side);
  c.height = 1 + below(side);
  switch (below(12)) {
    case 0:
      c.progressive = true;
      break;
    case 1:
      c.scans = true;
      break;
    case 2:
      c.arithmetic = below(3) == 0;
      break;
    default:
      break;
  }
  c.optimized = below(2) == 0;
  c.rgb = below(10) == 0;
  c.restart = below(3) == 0 ? 1 + below(below(2) == 0 ? 4 : 40) : 0;
  c.quality = below(5) == 0 ? 100 : 20 + below(80);
  c.orientation = below(4) == 0 ? 1 + below(8) : 1;
  c.seed = rng.next_u64();
  return c;
}

data::Box choose_crop(PositionRng& rng, int64_t width, int64_t height) {
  const auto side = [&](int64_t n, int64_t& at, int64_t& length) {
    const uint64_t kind = rng.below(8);
    length = kind == 0   ? 1
             : kind == 1 ? n
                         : 1 + static_cast<int64_t>(rng.below(static_cast<uint64_t>(n)));
    const auto room = static_cast<uint64_t>(n - length);
    at = kind == 2 ? 0 : kind == 3 ? n - length : static_cast<int64_t>(rng.below(room + 1));
  };
  data::Box box;
  side(width, box.x, box.width);
  side(height, box.y, box.height);
  return box;
}

}  // namespace nf::test

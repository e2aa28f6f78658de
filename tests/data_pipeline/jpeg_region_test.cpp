// Parts of JPEGs have the bits of the whole: every kind of JPEG, as it is and as nf-pack stores it,
// any crop. NF_REGION_PAIRS sets how many (image, crop) pairs are tried. ctest runs it a second
// time with libjpeg-turbo's SIMD off (JSIMD_FORCENONE=1).
#include "data_pipeline/jpeg_region.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <map>

#include "data_pipeline/jpeg_layout.h"
#include "data_pipeline/jpeg_transcode.h"
#include "tests/data_pipeline/jpeg_cases.h"

namespace nf::data {
namespace {

using test::ByteVector;
using test::JpegCase;

uint64_t pairs_wanted() {
  const char* text = std::getenv("NF_REGION_PAIRS");
  return text == nullptr ? 30'000 : std::strtoull(text, nullptr, 10);
}

void expect_same_pixels(const Image& whole, const PixelView& view, const Box& box,
                        const std::string& what) {
  for (int64_t y = box.y; y < box.y + box.height; ++y) {
    const uint8_t* expected = whole.rgb.data() + (y * whole.width + box.x) * 3;
    if (std::memcmp(view.at(box.x, y), expected, static_cast<size_t>(box.width) * 3) == 0) continue;
    FAIL() << what << ": row " << y << " of box " << box.x << "," << box.y << " " << box.width
           << "x" << box.height;
  }
}

struct Counts {
  uint64_t pairs = 0, fast = 0, spliced = 0, transcoded = 0, indexed = 0, images = 0;
};

// Whether the fast way was taken, so that no test passes by always decoding whole images.
bool check_crop(JpegRegionDecoder& fast, RegionDecoder& any, const ByteVector& bytes,
                const Image& whole, const Box& box, const std::string& what) {
  PixelView view;
  const bool taken = fast.open(bytes) && fast.decode(box, view);
  if (taken) expect_same_pixels(whole, view, box, what + ", fast");
  EXPECT_EQ(any.open(bytes).reason, "") << what;
  EXPECT_EQ(any.width(), whole.width) << what;
  EXPECT_EQ(any.decode(box, view).reason, "") << what;
  expect_same_pixels(whole, view, box, what);
  return taken;
}

TEST(JpegRegion, EveryPartHasTheBitsOfTheWhole) {
  JpegRegionDecoder fast;
  RegionDecoder any;
  std::map<std::string, Counts> by_sampling;
  Counts all;
  for (uint64_t index = 0; all.pairs < pairs_wanted(); ++index) {
    const JpegCase c = test::choose_case(index, 150);
    const ByteVector bytes = draw_jpeg_case(c);
    const std::string what = c.name + " case " + std::to_string(index);
    Image whole, again;
    ASSERT_EQ(decode_image(bytes, whole).reason, "") << what;
    ByteVector stored;
    const bool transcoded = transcode_jpeg(bytes, {}, stored);
    if (transcoded) {
      JpegLayout layout;
      ASSERT_TRUE(read_jpeg_layout(stored, layout)) << what;
      all.indexed += !layout.segment_index.empty();
      ASSERT_EQ(decode_image(stored, again).reason, "") << what;
      ASSERT_EQ(again.rgb, whole.rgb) << what;
      ASSERT_EQ(again.width, whole.width) << what;
    }
    const bool plain = !c.progressive && !c.arithmetic && (!c.scans || c.components == 1);
    Counts& counts = by_sampling[c.name];
    PositionRng rng(13, Stream::kTest, index);
    for (int k = 0; k < 8; ++k) {
      const Box box = test::choose_crop(rng, whole.width, whole.height);
      const bool taken = check_crop(fast, any, bytes, whole, box, what);
      EXPECT_EQ(taken, plain) << what;
      if (transcoded) {
        EXPECT_TRUE(check_crop(fast, any, stored, whole, box, what + " transcoded"));
        ++all.spliced;
      }
      all.fast += taken;
      ++counts.pairs;
      ++all.pairs;
    }
    all.transcoded += transcoded;
    ++all.images;
    if (HasFailure()) return;
  }
  EXPECT_EQ(by_sampling.size(), static_cast<size_t>(test::sampling_kinds()));
  EXPECT_GT(all.fast, all.pairs / 2);
  EXPECT_GT(all.transcoded, all.images / 4);
  EXPECT_GT(all.indexed, all.images / 8);
  std::printf(
      "%llu pairs, %llu of them by region, %llu by splice; %llu images, %llu transcoded, %llu with "
      "an index\n",
      static_cast<unsigned long long>(all.pairs), static_cast<unsigned long long>(all.fast),
      static_cast<unsigned long long>(all.spliced), static_cast<unsigned long long>(all.images),
      static_cast<unsigned long long>(all.transcoded),
      static_cast<unsigned long long>(all.indexed));
}

}  // namespace
}  // namespace nf::data

// The JPEG path: whole decode, region, transcoding, splice. Of any bytes: nothing crashes; a file
// that the quick check calls sound decodes; parts have the bits of the whole; what is stored anew
// has the pixels of the original. The last four bytes choose the crop.
#include <cstring>

#include "data_pipeline/jpeg.h"
#include "data_pipeline/jpeg_layout.h"
#include "data_pipeline/jpeg_region.h"
#include "data_pipeline/jpeg_scan.h"
#include "data_pipeline/jpeg_transcode.h"
#include "tests/data_pipeline/jpeg_cases.h"
#include "tests/fuzz/fuzz_target.h"

namespace nf::fuzz {

std::vector<Bytes> seeds() {
  std::vector<Bytes> all;
  for (uint64_t k = 0; k < 120; ++k) {
    all.push_back(test::draw_jpeg_case(test::choose_case(k, k % 3 == 0 ? 90 : 40)));
    Bytes stored;
    if (k % 2 == 0 && data::transcode_jpeg(all.back(), {}, stored)) all.push_back(stored);
  }
  const data::Image picture = test::draw_picture(40, 30, 2);
  for (const auto kind : {test::JpegKind::kArithmetic, test::JpegKind::kCmykAdobe,
                          test::JpegKind::kCmykBare, test::JpegKind::kYcck})
    all.push_back(test::make_jpeg(picture, kind));
  return all;
}

namespace {

data::DecodeLimits limits() {
  data::DecodeLimits l;
  l.max_pixels = 1 << 18;
  l.max_bytes = 64 << 20;
  l.max_scans = 40;
  return l;
}

data::Box choose_box(std::span<const uint8_t> bytes, int64_t width, int64_t height) {
  const auto byte = [&](size_t k) { return static_cast<int64_t>(bytes[bytes.size() - 1 - k]); };
  data::Box box;
  box.x = byte(0) * width / 256;
  box.y = byte(1) * height / 256;
  box.width = 1 + byte(2) * (width - box.x - 1) / 255;
  box.height = 1 + byte(3) * (height - box.y - 1) / 255;
  return box;
}

bool same(const data::Image& whole, const data::PixelView& view, const data::Box& box) {
  for (int64_t y = box.y; y < box.y + box.height; ++y) {
    if (std::memcmp(view.at(box.x, y), whole.rgb.data() + (y * whole.width + box.x) * 3,
                    static_cast<size_t>(box.width) * 3) != 0)
      return false;
  }
  return true;
}

// An index that lies is refused by nf-pack and covered by the shard's checksum afterwards.
bool index_can_be_trusted(std::span<const uint8_t> bytes) {
  data::JpegLayout layout;
  data::JpegScan scan;
  return !data::read_jpeg_layout(bytes, layout) || layout.segment_index.empty() ||
         !scan.open(bytes, layout) || scan.index_is_right();
}

void check_region(std::span<const uint8_t> bytes, const data::Image* whole, const data::Box& box) {
  static data::RegionDecoder decoder;
  data::PixelView view;
  if (!decoder.open(bytes, limits()).ok()) {
    fuzz_expect(whole == nullptr, "a region decoder refuses what decodes");
    return;
  }
  if (whole == nullptr) {  // a part that the damage has not reached, or a fault
    const data::Box own = choose_box(bytes, decoder.width(), decoder.height());
    (void)decoder.decode(own, view);
    return;
  }
  fuzz_expect(decoder.width() == whole->width && decoder.height() == whole->height, "sizes differ");
  fuzz_expect(decoder.decode(box, view).ok(), "a region of what decodes is refused");
  fuzz_expect(same(*whole, view, box), "a region differs from the whole");
}

}  // namespace
}  // namespace nf::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nf::fuzz;
  const std::span<const uint8_t> bytes(data, size);
  if (size < 4) return 0;
  nf::data::Image whole, again;
  int width = 0, height = 0;
  const bool headers = nf::data::probe_jpeg(bytes, width, height, limits()).ok();
  const bool good = headers && nf::data::decode_jpeg(bytes, whole, limits()).ok();
  if (headers && nf::data::is_sound_plain_jpeg(bytes))
    fuzz_expect(good, "called sound, but libjpeg-turbo objects");
  if (!good) {
    check_region(bytes, nullptr, {});
    Bytes stored;
    if (headers) (void)nf::data::transcode_jpeg(bytes, {}, stored);
    return 0;
  }
  const nf::data::Box box = choose_box(bytes, whole.width, whole.height);
  if (index_can_be_trusted(bytes)) check_region(bytes, &whole, box);
  Bytes stored;
  nf::data::TranscodeOptions options;
  options.max_growth_permille = 2000;  // small images too
  if (!nf::data::transcode_jpeg(bytes, options, stored)) return 0;
  fuzz_expect(nf::data::decode_jpeg(stored, again, limits()).ok(), "stored anew, does not decode");
  fuzz_expect(again.rgb == whole.rgb && again.width == whole.width, "stored anew, other pixels");
  fuzz_expect(nf::data::is_sound_plain_jpeg(stored), "stored anew, but not sound");
  fuzz_expect(index_can_be_trusted(stored), "stored anew with a wrong index");
  check_region(stored, &whole, box);
  return 0;
}

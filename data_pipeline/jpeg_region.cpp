// See jpeg_region.h.
#include "data_pipeline/jpeg_region.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "core/check.h"
#include "data_pipeline/exif.h"
#include "data_pipeline/jpeg_errors.h"
#include "data_pipeline/jpeg_scan.h"
#include "data_pipeline/jpeg_writer.h"

namespace nf::data {
namespace {

// Pixels beyond a box that its own pixels may depend on: upsampling by two looks at the
// neighbouring sample, which stands for two pixels.
constexpr int64_t kMargin = 2;

// libjpeg wants Huffman tables although nobody decodes with them: one code each.
HuffmanSpec unused_table() {
  HuffmanSpec spec;
  spec.count[1] = 1;
  spec.symbols = 1;
  return spec;
}

}  // namespace

struct JpegRegionDecoder::Impl {
  std::span<const uint8_t> bytes;
  JpegLayout layout;
  JpegScan scan;
  bool tables_read = false;

  // MCUs to decode: columns [first_col, end_col) of rows from first_row on; and which is next.
  int64_t first_col = 0, end_col = 0, first_row = 0, next_col = 0, next_row = 0;

  jpeg_decompress_struct cinfo{};
  JpegErrors errors{};
  bool created = false;
  std::vector<uint8_t> header, pixels;
  std::vector<uint8_t*> rows;
  Image turned;

  ~Impl() {
    if (created) jpeg_destroy_decompress(&cinfo);
  }

  Box choose_mcus(const Box& box);
  void write_header(const Box& mcus);
  bool run();
  void decode_rows();
  void turn(const Box& stored, const Box& from, const Box& upright, PixelView& view);
  static boolean decode_mcu(j_decompress_ptr cinfo, JBLOCKROW* blocks);
};

// The pixels of the MCUs under the box and its margin.
Box JpegRegionDecoder::Impl::choose_mcus(const Box& box) {
  const JpegFrame& f = layout.frame;
  first_col = std::max<int64_t>(0, box.x - kMargin) / f.mcu_width;
  end_col = std::min(f.mcus_per_row, (box.x + box.width + kMargin - 1) / f.mcu_width + 1);
  first_row = std::max<int64_t>(0, box.y - kMargin) / f.mcu_height;
  const int64_t end_row =
      std::min(f.mcu_rows, (box.y + box.height + kMargin - 1) / f.mcu_height + 1);
  // libjpeg upsamples planes of one or two columns in another way: never leave so few of more.
  if (end_col == f.mcus_per_row && end_col - first_col == 1 && first_col > 0) --first_col;
  const int64_t x = first_col * f.mcu_width, y = first_row * f.mcu_height;
  return {x, y, std::min(f.width, end_col * f.mcu_width) - x,
          std::min(f.height, end_row * f.mcu_height) - y};
}

void JpegRegionDecoder::Impl::write_header(const Box& mcus) {
  JpegHeader small;
  small.frame = layout.frame;
  small.frame.width = mcus.width;
  small.frame.height = mcus.height;
  for (JpegComponent& c : small.frame.component) c.dc = c.ac = 0;
  small.quant = layout.quant;
  small.colour = layout.colour;
  small.dc[0] = small.ac[0] = unused_table();
  write_jpeg_header(small, header);
}

#if NF_JPEG_MODULES

boolean JpegRegionDecoder::Impl::decode_mcu(j_decompress_ptr cinfo, JBLOCKROW* blocks) {
  Impl& self = *static_cast<Impl*>(cinfo->client_data);
  const int64_t mcu = self.next_row * self.layout.frame.mcus_per_row + self.next_col;
  bool read = false;
  try {
    read = self.scan.decode_mcu(mcu, blocks);
  } catch (const std::bad_alloc&) {  // must not fly through libjpeg
  }
  if (!read) fail_jpeg(reinterpret_cast<j_common_ptr>(cinfo), "odd entropy-coded data");
  if (++self.next_col == self.end_col) {
    self.next_col = self.first_col;
    ++self.next_row;
  }
  return TRUE;
}

// Between the two lies libjpeg, which our errors leave by a jump: nothing here owns memory.
bool JpegRegionDecoder::Impl::run() {
  if (setjmp(errors.jump) != 0) {
    if (created) jpeg_abort_decompress(&cinfo);
    return false;
  }
  decode_rows();
  return true;
}

void JpegRegionDecoder::Impl::decode_rows() {
  if (!created) {
    init_jpeg_errors(errors);
    cinfo.err = &errors.base;
    jpeg_create_decompress(&cinfo);
    cinfo.client_data = this;
    created = true;
  }
  jpeg_mem_src(&cinfo, header.data(), static_cast<unsigned long>(header.size()));
  jpeg_read_header(&cinfo, TRUE);
  cinfo.out_color_space = JCS_RGB;
  cinfo.dct_method = JDCT_ISLOW;
  cinfo.do_fancy_upsampling = TRUE;
  jpeg_start_decompress(&cinfo);
  cinfo.entropy->decode_mcu = decode_mcu;
  next_col = first_col;
  next_row = first_row;
  const auto wanted = static_cast<JDIMENSION>(rows.size());
  while (cinfo.output_scanline < wanted) {
    jpeg_read_scanlines(&cinfo, rows.data() + cinfo.output_scanline,
                        wanted - cinfo.output_scanline);
  }
  jpeg_abort_decompress(&cinfo);
}

#else  // without the interface of libjpeg's modules every image is decoded whole

boolean JpegRegionDecoder::Impl::decode_mcu(j_decompress_ptr, JBLOCKROW*) { return FALSE; }
bool JpegRegionDecoder::Impl::run() { return false; }
void JpegRegionDecoder::Impl::decode_rows() {}

#endif

JpegRegionDecoder::JpegRegionDecoder() : impl_(std::make_unique<Impl>()) {}
JpegRegionDecoder::~JpegRegionDecoder() = default;

bool JpegRegionDecoder::open(std::span<const uint8_t> bytes, const DecodeLimits& limits) {
  Impl& d = *impl_;
  if (NF_JPEG_MODULES == 0 || !read_jpeg_layout(bytes, d.layout)) return false;
  const int64_t w = d.layout.frame.width, h = d.layout.frame.height;
  if (w > limits.max_side || h > limits.max_side || w * h > limits.max_pixels ||
      3 * w * h * (d.layout.orientation == 1 ? 1 : 2) > limits.max_bytes)
    return false;
  d.bytes = bytes;
  d.tables_read = false;
  return true;
}

int64_t JpegRegionDecoder::width() const {
  const JpegLayout& l = impl_->layout;
  return swaps_sides(l.orientation) ? l.frame.height : l.frame.width;
}

int64_t JpegRegionDecoder::height() const {
  const JpegLayout& l = impl_->layout;
  return swaps_sides(l.orientation) ? l.frame.width : l.frame.height;
}

bool JpegRegionDecoder::decode(const Box& box, PixelView& view) {
  Impl& d = *impl_;
  NF_CHECK(box.width > 0 && box.height > 0 && contains({0, 0, width(), height()}, box),
           "region outside the image");
  if (!d.tables_read && !d.scan.open(d.bytes, d.layout)) return false;
  d.tables_read = true;
  const JpegFrame& f = d.layout.frame;
  const Box stored = stored_box(d.layout.orientation, f.width, f.height, box);
  const Box mcus = d.choose_mcus(stored);
  d.write_header(mcus);
  const auto stride = static_cast<size_t>(mcus.width * 3);
  const auto count = static_cast<size_t>(stored.y + stored.height - mcus.y);
  if (d.pixels.size() < stride * count) d.pixels.resize(stride * count);
  d.rows.resize(count);
  for (size_t r = 0; r < count; ++r) d.rows[r] = d.pixels.data() + r * stride;
  if (!d.run()) return false;
  const Box decoded{mcus.x, mcus.y, mcus.width, static_cast<int64_t>(count)};
  if (d.layout.orientation == 1) {
    view = {d.pixels.data(), static_cast<int64_t>(stride), decoded};
  } else {
    d.turn(stored, decoded, box, view);
  }
  return true;
}

// Cuts the box out of the stored pixels and turns it upright.
void JpegRegionDecoder::Impl::turn(const Box& stored, const Box& from, const Box& upright,
                                   PixelView& view) {
  const PixelView all{pixels.data(), from.width * 3, from};
  turned.width = static_cast<int>(stored.width);
  turned.height = static_cast<int>(stored.height);
  turned.rgb.clear();
  for (int64_t y = stored.y; y < stored.y + stored.height; ++y) {
    const uint8_t* row = all.at(stored.x, y);
    turned.rgb.insert(turned.rgb.end(), row, row + stored.width * 3);
  }
  apply_orientation(layout.orientation, turned);
  view = {turned.rgb.data(), upright.width * 3, upright};
}

SampleFault RegionDecoder::open(std::span<const uint8_t> bytes, const DecodeLimits& limits) {
  bytes_ = bytes;
  limits_ = limits;
  whole_ = false;
  if (jpeg_.open(bytes, limits)) {
    width_ = jpeg_.width();
    height_ = jpeg_.height();
    return {};
  }
  return decode_whole();
}

SampleFault RegionDecoder::decode_whole() {
  SampleFault fault = decode_image(bytes_, image_, limits_);
  whole_ = fault.ok();
  width_ = image_.width;
  height_ = image_.height;
  return fault;
}

SampleFault RegionDecoder::decode(const Box& box, PixelView& view) {
  try {
    if (!whole_ && jpeg_.decode(box, view)) return {};
    if (!whole_) {
      if (SampleFault fault = decode_whole(); !fault.ok()) return fault;
    }
  } catch (const std::bad_alloc&) {
    return {"out of memory while decoding"};
  }
  view = {image_.rgb.data(), width_ * 3, {0, 0, width_, height_}};
  return {};
}

}  // namespace nf::data

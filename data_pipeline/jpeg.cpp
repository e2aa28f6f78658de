// See jpeg.h.
#include "data_pipeline/jpeg.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "core/check.h"
#include "data_pipeline/exif.h"
#include "data_pipeline/jpeg_errors.h"

namespace nf::data {
namespace {

constexpr int64_t kMaxScanPixels = 5'000'000'000;  // pixels x scans: about a minute of work
constexpr unsigned kMaxMarker = 0xFFFF;

struct ScanMonitor {
  jpeg_progress_mgr base;  // first, as above
  int64_t max_scans;
};

void on_progress(j_common_ptr common) {
  auto* cinfo = reinterpret_cast<j_decompress_ptr>(common);
  const auto* monitor = reinterpret_cast<const ScanMonitor*>(cinfo->progress);
  if (cinfo->input_scan_number > monitor->max_scans) {
    auto* manager = reinterpret_cast<JpegErrors*>(cinfo->err);
    std::snprintf(manager->reason, sizeof manager->reason, "JPEG: more than %d scans at this size",
                  static_cast<int>(monitor->max_scans));
    std::longjmp(manager->jump, 1);
  }
}

// One decompression; plain members only, except the buffers that guarded bodies fill but never
// resize.
class Decoder {
 public:
  Decoder() {
    std::memset(&cinfo_, 0, sizeof cinfo_);
    std::memset(&monitor_, 0, sizeof monitor_);
    init_jpeg_errors(errors_);
    cinfo_.err = &errors_.base;
  }
  ~Decoder() { jpeg_destroy_decompress(&cinfo_); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  SampleFault open(std::span<const uint8_t> bytes, const DecodeLimits& limits) {
    bytes_ = bytes;
    if (!guarded(read_header)) return fault();
    return check_limits(limits);
  }

  // Decodes to `rgb` ([height, width, 3] as stored), or nowhere when null.
  SampleFault decode(uint8_t* rgb) {
    rgb_ = rgb;
    // Rows that are not RGB yet, or that nobody keeps, go here.
    row_.resize(static_cast<size_t>(cinfo_.image_width) * 4);
    return guarded(read_rows) ? SampleFault{} : fault();
  }

  int width() const { return static_cast<int>(cinfo_.image_width); }
  int height() const { return static_cast<int>(cinfo_.image_height); }
  int orientation() const { return orientation_; }

 private:
  bool guarded(void (*body)(Decoder&)) {
    if (setjmp(errors_.jump) != 0) return false;
    body(*this);
    return true;
  }

  SampleFault fault() const { return {errors_.reason}; }

  static void read_header(Decoder& d) {
    j_decompress_ptr cinfo = &d.cinfo_;
    jpeg_create_decompress(cinfo);
    cinfo->progress = &d.monitor_.base;
    d.monitor_.base.progress_monitor = on_progress;
    d.monitor_.max_scans = 1 << 20;
    jpeg_mem_src(cinfo, d.bytes_.data(), static_cast<unsigned long>(d.bytes_.size()));
    jpeg_save_markers(cinfo, JPEG_APP0 + 1, kMaxMarker);
    jpeg_read_header(cinfo, TRUE);
    d.orientation_ = saved_orientation(*cinfo);
  }

  SampleFault check_limits(const DecodeLimits& limits) {
    const int64_t w = cinfo_.image_width, h = cinfo_.image_height;
    const std::string size = std::to_string(w) + "x" + std::to_string(h);
    if (w > limits.max_side || h > limits.max_side || w * h > limits.max_pixels) {
      return {"JPEG: announces " + size + " pixels, more than the limit"};
    }
    if (cinfo_.num_components != 1 && cinfo_.num_components != 3 && cinfo_.num_components != 4) {
      return {"JPEG: " + std::to_string(cinfo_.num_components) + " colour components"};
    }
    int64_t memory = 3 * w * h * (orientation_ == 1 ? 1 : 2);
    if (jpeg_has_multiple_scans(&cinfo_)) {
      for (int i = 0; i < cinfo_.num_components; ++i) {
        const jpeg_component_info& c = cinfo_.comp_info[i];
        memory += int64_t{c.width_in_blocks} * c.height_in_blocks * DCTSIZE2 *
                  static_cast<int64_t>(sizeof(JCOEF));
      }
    }
    if (memory > limits.max_bytes) {
      return {"JPEG: " + size + " pixels need " + std::to_string(memory >> 20) +
              " MiB to decode, more than the limit"};
    }
    monitor_.max_scans = std::min<int64_t>(limits.max_scans, kMaxScanPixels / (w * h));
    cinfo_.mem->max_memory_to_use = static_cast<long>(limits.max_bytes);
    return {};
  }

  static void read_rows(Decoder& d) {
    j_decompress_ptr cinfo = &d.cinfo_;
    const bool four = cinfo->num_components == 4;
    cinfo->out_color_space = four ? JCS_CMYK : JCS_RGB;
    cinfo->dct_method = JDCT_ISLOW;
    cinfo->do_fancy_upsampling = TRUE;
    jpeg_start_decompress(cinfo);
    const size_t stride = size_t{3} * cinfo->output_width;
    while (cinfo->output_scanline < cinfo->output_height) {
      uint8_t* to = d.rgb_ == nullptr ? nullptr : d.rgb_ + stride * cinfo->output_scanline;
      JSAMPROW row = four || to == nullptr ? d.row_.data() : to;
      jpeg_read_scanlines(cinfo, &row, 1);
      if (four && to != nullptr) cmyk_to_rgb(d.row_.data(), cinfo->output_width, to);
    }
    jpeg_finish_decompress(cinfo);  // reads on to the end marker: a file without one is a fault
  }

  // JPEG files hold CMYK inverted (0 = full ink), as Adobe began it; so R = C K / 255 and so on.
  // Files without the Adobe marker are read the same way, as other decoders do: writers that omit
  // it invert all the same.
  static void cmyk_to_rgb(const uint8_t* cmyk, size_t pixels, uint8_t* rgb) {
    for (size_t i = 0; i < pixels; ++i, cmyk += 4, rgb += 3) {
      for (int c = 0; c < 3; ++c) rgb[c] = static_cast<uint8_t>((cmyk[c] * cmyk[3] + 127) / 255);
    }
  }

  jpeg_decompress_struct cinfo_;
  JpegErrors errors_;
  ScanMonitor monitor_;
  std::span<const uint8_t> bytes_;
  uint8_t* rgb_ = nullptr;
  std::vector<uint8_t> row_;
  int orientation_ = 1;
};

void upright_size(const Decoder& decoder, int& width, int& height) {
  width = decoder.width();
  height = decoder.height();
  if (swaps_sides(decoder.orientation())) std::swap(width, height);
}

struct Encoder {
  jpeg_compress_struct cinfo;
  JpegErrors errors;
  unsigned char* buffer = nullptr;
  unsigned long size = 0;

  Encoder() {
    std::memset(&cinfo, 0, sizeof cinfo);
    init_jpeg_errors(errors);
    cinfo.err = &errors.base;
  }
  ~Encoder() {
    jpeg_destroy_compress(&cinfo);
    std::free(buffer);
  }
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  bool run(const Image& image, int quality) {
    if (setjmp(errors.jump) != 0) return false;
    jpeg_create_compress(&cinfo);
    jpeg_mem_dest(&cinfo, &buffer, &size);
    cinfo.image_width = static_cast<JDIMENSION>(image.width);
    cinfo.image_height = static_cast<JDIMENSION>(image.height);
    cinfo.input_components = 3;
    cinfo.in_color_space = JCS_RGB;
    jpeg_set_defaults(&cinfo);
    jpeg_set_quality(&cinfo, quality, TRUE);
    cinfo.dct_method = JDCT_ISLOW;
    cinfo.optimize_coding = TRUE;
    jpeg_start_compress(&cinfo, TRUE);
    while (cinfo.next_scanline < cinfo.image_height) {
      // libjpeg takes a pointer to mutable rows and never writes through it.
      auto* row = const_cast<JSAMPROW>(image.rgb.data() +
                                       size_t{3} * cinfo.image_width * cinfo.next_scanline);
      jpeg_write_scanlines(&cinfo, &row, 1);
    }
    jpeg_finish_compress(&cinfo);
    return true;
  }
};

}  // namespace

SampleFault decode_jpeg(std::span<const uint8_t> bytes, Image& out, const DecodeLimits& limits) {
  Decoder decoder;
  if (auto fault = decoder.open(bytes, limits); !fault.ok()) return fault;
  out.width = decoder.width();
  out.height = decoder.height();
  out.rgb.resize(size_t{3} * static_cast<size_t>(out.width) * static_cast<size_t>(out.height));
  if (auto fault = decoder.decode(out.rgb.data()); !fault.ok()) return fault;
  apply_orientation(decoder.orientation(), out);
  return {};
}

SampleFault check_jpeg(std::span<const uint8_t> bytes, int& width, int& height,
                       const DecodeLimits& limits) {
  Decoder decoder;
  if (auto fault = decoder.open(bytes, limits); !fault.ok()) return fault;
  upright_size(decoder, width, height);
  return decoder.decode(nullptr);
}

SampleFault probe_jpeg(std::span<const uint8_t> bytes, int& width, int& height,
                       const DecodeLimits& limits) {
  Decoder decoder;
  if (auto fault = decoder.open(bytes, limits); !fault.ok()) return fault;
  upright_size(decoder, width, height);
  return {};
}

std::vector<uint8_t> encode_jpeg(const Image& image, int quality) {
  NF_CHECK(image.width > 0 && image.height > 0 && quality >= 1 && quality <= 100);
  NF_CHECK(image.rgb.size() ==
           size_t{3} * static_cast<size_t>(image.width) * static_cast<size_t>(image.height));
  Encoder encoder;
  if (!encoder.run(image, quality))
    throw std::runtime_error(std::string("encode_jpeg: ") + encoder.errors.reason);
  return {encoder.buffer, encoder.buffer + encoder.size};
}

}  // namespace nf::data

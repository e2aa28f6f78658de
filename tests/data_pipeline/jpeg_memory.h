// libjpeg's encoder writing into memory, for fixtures that set what no encoder of ours offers.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

// After cstdio: jpeglib.h needs its FILE.
#include <jpeglib.h>

namespace nf::test {

class JpegMemory {
 public:
  // Defaults set for `components` of `space`; change `cinfo` before the first row.
  JpegMemory(int width, int height, int components, J_COLOR_SPACE space, int quality) {
    cinfo.err = jpeg_std_error(&errors_);
    jpeg_create_compress(&cinfo);
    jpeg_mem_dest(&cinfo, &buffer_, &size_);
    cinfo.image_width = static_cast<JDIMENSION>(width);
    cinfo.image_height = static_cast<JDIMENSION>(height);
    cinfo.input_components = components;
    cinfo.in_color_space = space;
    jpeg_set_defaults(&cinfo);
    jpeg_set_quality(&cinfo, quality, TRUE);
  }
  ~JpegMemory() {
    jpeg_destroy_compress(&cinfo);
    std::free(buffer_);
  }
  JpegMemory(const JpegMemory&) = delete;
  JpegMemory& operator=(const JpegMemory&) = delete;

  // row(y) gives row y's interleaved samples. Returns the file.
  template <class Row>
  std::vector<uint8_t> write(Row row) {
    jpeg_start_compress(&cinfo, TRUE);
    while (cinfo.next_scanline < cinfo.image_height) {
      // libjpeg takes a pointer to mutable rows and never writes through it.
      auto* samples = const_cast<JSAMPROW>(row(size_t{cinfo.next_scanline}));
      jpeg_write_scanlines(&cinfo, &samples, 1);
    }
    jpeg_finish_compress(&cinfo);
    return {buffer_, buffer_ + size_};
  }

  jpeg_compress_struct cinfo{};

 private:
  jpeg_error_mgr errors_{};
  unsigned char* buffer_ = nullptr;
  unsigned long size_ = 0;
};

}  // namespace nf::test

// Turns an input file into the bytes that a data set stores: a JPEG transcoded without loss so that
// parts of it can be decoded alone (jpeg_transcode.h), the file itself where that is not wanted or
// not possible, or a smaller JPEG when a size was asked for. Both passes of a pack go through here,
// so they agree.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "data_pipeline/decode.h"
#include "data_pipeline/jpeg_transcode.h"

namespace nf::data {

struct PrepareOptions {
  int resize_short = 0;  // pixels; 0 stores files as they are
  int quality = 90;      // of the JPEG after resizing
  bool transcode = true;
  bool headers_only = false;  // what is stored as it is, is not decoded first; not with transcode
  DecodeLimits limits;
};

class ImagePreparer {
 public:
  explicit ImagePreparer(const PrepareOptions& options) : options_(options) {}

  // Decides whether the file in `bytes` is accepted, replaces it by what is stored, and gives the
  // upright size of that. Thread-safe; images above 16 megapixels are decoded one at a time to
  // bound memory.
  SampleFault prepare(std::vector<uint8_t>& bytes, int& width, int& height);

  // The same for a file that prepare() accepted before: no decoding where bytes are stored as they
  // are.
  SampleFault prepare_again(std::vector<uint8_t>& bytes);

 private:
  SampleFault reencode(std::vector<uint8_t>& bytes, int& width, int& height) const;
  SampleFault check_headers(std::span<const uint8_t> bytes) const;
  SampleFault check_and_transcode(std::vector<uint8_t>& bytes, int& width, int& height);
  std::unique_ptr<JpegTranscoder> take_transcoder();
  void give_back(std::unique_ptr<JpegTranscoder> transcoder);

  PrepareOptions options_;
  std::mutex large_;
  std::mutex spare_mutex_;
  std::vector<std::unique_ptr<JpegTranscoder>> spare_;  // as many as threads were here at once
};

}  // namespace nf::data

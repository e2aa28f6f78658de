// Turns an input file into the bytes that a data set stores: the file itself when it decodes, or a
// smaller JPEG of it when a size was asked for. Both passes of a pack go through here, so they
// agree.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "data_pipeline/decode.h"

namespace nf::data {

struct PrepareOptions {
  int resize_short = 0;  // pixels; 0 stores files as they are
  int quality = 90;      // of the JPEG after resizing
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

  PrepareOptions options_;
  std::mutex large_;
};

}  // namespace nf::data

// Stores a JPEG anew without loss, so that parts of it can be decoded alone: the same coefficients,
// hence the same pixels bit for bit; sequential, Huffman tables made for this image, a restart
// marker every few MCUs, and an index of the segments between them in an APP9 marker
// (docs/data_format.md). Of the metadata only the EXIF orientation stays.
//
// A pure function of the bytes. Not transcoded are CMYK, arithmetic coding, progressive files whose
// scans do not give every coefficient in full, and images that would grow too much.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace nf::data {

struct TranscodeOptions {
  // Restart intervals in MCUs, tried in this order.
  std::array<int, 4> intervals = {8, 16, 32, 64};
  int max_growth_permille = 15;  // with restart markers; without them the file must not grow
};

// Keeps its memory between images; one for each thread.
class JpegTranscoder {
 public:
  JpegTranscoder();
  ~JpegTranscoder();
  JpegTranscoder(const JpegTranscoder&) = delete;
  JpegTranscoder& operator=(const JpegTranscoder&) = delete;

  // True: `bytes` is a plain JPEG (jpeg_layout.h) whose entropy-coded data are sound to the last
  // bit, so libjpeg-turbo decodes it without a warning provided that it accepts the headers.
  bool read_plain(std::span<const uint8_t> bytes);
  // The same verdict without keeping anything to write.
  bool check_plain(std::span<const uint8_t> bytes);
  // Reads any other JPEG through libjpeg-turbo. False: cannot be transcoded.
  bool read_any(std::span<const uint8_t> bytes);
  // Writes what was read last, from a file of `original` bytes. False: it would grow too much.
  bool write(size_t original, const TranscodeOptions& options, std::vector<uint8_t>& out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Everything in one call. False: keep the original.
bool transcode_jpeg(std::span<const uint8_t> bytes, const TranscodeOptions& options,
                    std::vector<uint8_t>& out);

}  // namespace nf::data

// See odd_files.h: the set that is drawn here.
#include "tests/data_pipeline/odd_files.h"

#include <algorithm>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>

#include "tests/data_pipeline/store_fixtures.h"

namespace nf::test {
namespace {

ByteVector by_opencv(const std::string& extension, const cv::Mat& mat) {
  ByteVector bytes;
  cv::imencode(extension, mat, bytes);
  return bytes;
}

ByteVector head(const ByteVector& bytes, size_t percent) {
  return {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() * percent / 100)};
}

// Overwrites height and width in the frame header of a baseline JPEG.
ByteVector with_size(ByteVector jpeg, int height, int width) {
  const uint8_t marker[] = {0xFF, 0xC0};
  const auto at = std::search(jpeg.begin(), jpeg.end(), marker, marker + 2) + 5;
  at[0] = static_cast<uint8_t>(height >> 8), at[1] = static_cast<uint8_t>(height);
  at[2] = static_cast<uint8_t>(width >> 8), at[3] = static_cast<uint8_t>(width);
  return jpeg;
}

}  // namespace

std::vector<OddFile> draw_odd_files(const std::filesystem::path& folder) {
  std::vector<OddFile> files;
  const auto add = [&](const std::string& name, const ByteVector& bytes,
                       const std::string& reason = "") {
    write_bytes(folder / name, bytes);
    files.push_back({name, reason});
  };
  const data::Image picture = draw_picture(61, 47, 3);
  const ByteVector jpeg = draw_jpeg(61, 47, 3);
  const cv::Mat color(47, 61, CV_8UC3, cv::Scalar(10, 100, 200)),
      gray(47, 61, CV_8UC1, cv::Scalar(77));
  const cv::Mat alpha(47, 61, CV_8UC4, cv::Scalar(10, 100, 200, 50)),
      wide(47, 61, CV_16UC3, cv::Scalar(1000, 30000, 60000));
  const ByteVector png = by_opencv(".png", color);

  add("baseline.jpg", jpeg);
  add("progressive.jpg", make_jpeg(picture, JpegKind::kProgressive));
  add("arithmetic.jpg", make_jpeg(picture, JpegKind::kArithmetic));
  add("gray.jpg", make_jpeg(picture, JpegKind::kGray));
  add("cmyk.jpg", make_jpeg(picture, JpegKind::kCmykAdobe));
  add("cmyk_bare.jpg", make_jpeg(picture, JpegKind::kCmykBare));
  add("ycck.jpg", make_jpeg(picture, JpegKind::kYcck));
  for (int o = 0; o <= 9; ++o)
    add("exif_" + std::to_string(o) + ".jpg", with_exif(jpeg, exif_block(o, o % 2 == 0)));
  add("one_pixel.jpg", draw_jpeg(1, 1, 1));
  add("thin.jpg", draw_jpeg(1, 1500, 1));
  add("large_flat.jpg", make_jpeg(
                            [] {
                              data::Image flat;
                              flat.width = 5000, flat.height = 4000;
                              flat.rgb.assign(size_t{3} * 5000 * 4000, 90);
                              return flat;
                            }(),
                            JpegKind::kGrayProgressive));
  ByteVector trailing = jpeg;
  trailing.insert(trailing.end(), 777, 0x41);
  add("trailing.jpg", trailing);
  add("png.jpg", png);
  add("jpeg.png", jpeg);
  add("gray.png", by_opencv(".png", gray));
  add("alpha.png", by_opencv(".png", alpha));
  add("wide.png", by_opencv(".png", wide));
  add("bmp.jpg", by_opencv(".bmp", color));
  add("webp.jpg", by_opencv(".webp", color));
  add("tiff.jpg", by_opencv(".tiff", color));

  add("zero_byte.jpg", {}, "empty file");
  add("html.jpg", {'<', 'h', 't', 'm', 'l', '>'}, "not an image in a known format");
  add("gif.jpg", {'G', 'I', 'F', '8', '9', 'a', 1, 0, 1, 0}, "GIF is not supported");
  for (const size_t percent : {2, 30, 60, 99})
    add("cut_" + std::to_string(percent) + ".jpg", head(jpeg, percent), "JPEG: ");
  add("cut.png", head(png, 60), "PNG: truncated");
  add("cut.bmp", head(by_opencv(".bmp", color), 60), "BMP: truncated");
  add("cut.webp", head(by_opencv(".webp", color), 60), "WebP: ");
  add("cut.tiff", head(by_opencv(".tiff", color), 60), "TIFF: ");
  ByteVector bad_crc = png;
  bad_crc[bad_crc.size() - 20] ^= 4;
  add("bad_crc.png", bad_crc, "PNG: wrong CRC");
  add("size_30000.jpg", with_size(jpeg, 30000, 30000),
      "announces 30000x30000 pixels, more than the limit");
  add("size_0.jpg", with_size(jpeg, 0, 61), "Empty JPEG image");
  add("size_taller.jpg", with_size(jpeg, 94, 61), "premature end");
  return files;
}

const std::map<std::string, std::string>& headers_only_verdicts() {
  const char* no_end = "JPEG: ends without an end marker";
  static const std::map<std::string, std::string> verdicts = {
      // drawn here
      {"size_taller.jpg", ""},
      // collected: accepted
      {"bitflip_entropy_16.jpg", ""},
      {"dims_shorter_than_data.jpg", ""},
      {"dims_taller_than_data.jpg", ""},
      {"pillow_hopper_bad_exif.jpg", ""},
      {"zeroed_block_mid.jpg", ""},
      // refused for other words
      {"gofuzz_jpeg_02.jpg", "quantization table 0 was not defined"},
      {"gofuzz_jpeg_03.jpg", "quantization table 3 was not defined"},
      {"gofuzz_jpeg_07.jpg", "bogus range of coefficients"},
      {"gofuzz_jpeg_12.jpg", "quantization table 0 was not defined"},
      {"header_only.jpg", no_end},
      {"no_eoi.jpg", no_end},
      {"pillow_truncated_jpeg.jpg", no_end},
      {"progressive_trunc_40.jpg", no_end},
      {"trunc_10.jpg", no_end},
      {"trunc_25.jpg", no_end},
      {"trunc_50.jpg", no_end},
      {"trunc_75.jpg", no_end},
      {"trunc_99.jpg", no_end},
  };
  return verdicts;
}

}  // namespace nf::test

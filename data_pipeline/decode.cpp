// See decode.h.
#include "data_pipeline/decode.h"

#include <mutex>
#include <new>
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <string>

#include "data_pipeline/exif.h"
#include "data_pipeline/image_header.h"
#include "data_pipeline/jpeg.h"

namespace nf::data {
namespace {

SampleFault read_header(ImageFormat format, std::span<const uint8_t> bytes, ImageHeader& header) {
  switch (format) {
    case ImageFormat::kPng:
      return read_png_header(bytes, header);
    case ImageFormat::kBmp:
      return read_bmp_header(bytes, header);
    case ImageFormat::kWebp:
      return read_webp_header(bytes, header);
    default:
      return read_tiff_header(bytes, header);
  }
}

SampleFault check_size(const ImageHeader& header, const DecodeLimits& limits) {
  const int64_t w = header.width, h = header.height;
  const std::string size = std::to_string(w) + "x" + std::to_string(h);
  if (w <= 0 || h <= 0) return {"announces " + size + " pixels"};
  if (w > limits.max_side || h > limits.max_side || w * h > limits.max_pixels) {
    return {"announces " + size + " pixels, more than the limit"};
  }
  const int64_t memory = w * h * (header.decoder_bytes + (header.orientation == 1 ? 3 : 6));
  if (memory > limits.max_bytes) {
    return {size + " pixels need " + std::to_string(memory >> 20) +
            " MiB to decode, more than the limit"};
  }
  return {};
}

// OpenCV's BGR(A) or gray, 8 or 16 bits, to RGB. 16-bit samples keep their upper byte; alpha is
// dropped.
template <class Sample>
void to_rgb(const cv::Mat& from, int shift, uint8_t* to) {
  const int channels = from.channels();
  const int green = channels == 1 ? 0 : 1, red = channels == 1 ? 0 : 2;
  for (int y = 0; y < from.rows; ++y) {
    const Sample* pixel = from.ptr<Sample>(y);
    for (int x = 0; x < from.cols; ++x, pixel += channels, to += 3) {
      to[0] = static_cast<uint8_t>(pixel[red] >> shift);
      to[1] = static_cast<uint8_t>(pixel[green] >> shift);
      to[2] = static_cast<uint8_t>(pixel[0] >> shift);
    }
  }
}

SampleFault decode_with_opencv(ImageFormat format, std::span<const uint8_t> bytes,
                               const ImageHeader& header, Image& out) {
  static std::once_flag quiet;  // OpenCV would print its warnings from a library
  std::call_once(quiet,
                 [] { cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT); });
  std::vector<uint8_t> stripped;
  if (format == ImageFormat::kPng) {
    stripped = strip_png(bytes);
    bytes = stripped;
  }
  // A view; OpenCV reads it only.
  const cv::Mat encoded(1, static_cast<int>(bytes.size()), CV_8UC1,
                        const_cast<uint8_t*>(bytes.data()));
  const cv::Mat decoded = cv::imdecode(encoded, cv::IMREAD_UNCHANGED);
  if (decoded.empty()) return {"damaged image data"};
  if (decoded.cols != header.width || decoded.rows != header.height)
    return {"image data do not have the announced size"};
  const int channels = decoded.channels();
  if ((decoded.depth() != CV_8U && decoded.depth() != CV_16U) ||
      (channels != 1 && channels != 3 && channels != 4)) {
    return {"kind of samples is not supported"};
  }
  out.width = decoded.cols;
  out.height = decoded.rows;
  out.rgb.resize(size_t{3} * static_cast<size_t>(out.width) * static_cast<size_t>(out.height));
  if (decoded.depth() == CV_8U) {
    to_rgb<uint8_t>(decoded, 0, out.rgb.data());
  } else {
    to_rgb<uint16_t>(decoded, 8, out.rgb.data());
  }
  return {};
}

const char* format_name(ImageFormat format) {
  switch (format) {
    case ImageFormat::kPng:
      return "PNG";
    case ImageFormat::kBmp:
      return "BMP";
    case ImageFormat::kWebp:
      return "WebP";
    default:
      return "TIFF";
  }
}

// Headers' reasons carry their format's name already.
SampleFault named(ImageFormat format, SampleFault fault) {
  const std::string prefix = std::string(format_name(format)) + ": ";
  if (!fault.ok() && fault.reason.rfind(prefix, 0) != 0) fault.reason = prefix + fault.reason;
  return fault;
}

SampleFault decode_other(ImageFormat format, std::span<const uint8_t> bytes, Image& out,
                         const DecodeLimits& limits) {
  ImageHeader header;
  if (auto fault = read_header(format, bytes, header); !fault.ok()) return named(format, fault);
  if (auto fault = check_size(header, limits); !fault.ok()) return named(format, fault);
  if (auto fault = decode_with_opencv(format, bytes, header, out); !fault.ok())
    return named(format, fault);
  apply_orientation(header.orientation, out);
  return {};
}

// Runs a decoder; whatever it throws becomes a reason.
template <class Body>
SampleFault caught(const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return {"out of memory while decoding"};
  } catch (const cv::Exception& e) {
    return {e.code == cv::Error::StsNoMem ? "out of memory while decoding"
                                          : "damaged image data (OpenCV: " + e.err + ")"};
  } catch (const std::exception& e) {
    return {std::string("cannot decode: ") + e.what()};
  }
}

constexpr size_t kMaxFileBytes = size_t{1} << 30;  // OpenCV counts bytes in an int

}  // namespace

SampleFault decode_image(std::span<const uint8_t> bytes, Image& out, const DecodeLimits& limits) {
  return caught([&]() -> SampleFault {
    SampleFault unknown;
    const ImageFormat format = sniff_format(bytes, unknown);
    if (format == ImageFormat::kUnknown) return unknown;
    if (bytes.size() > kMaxFileBytes) return {"file larger than 1 GiB"};
    if (format == ImageFormat::kJpeg) return decode_jpeg(bytes, out, limits);
    return decode_other(format, bytes, out, limits);
  });
}

SampleFault check_image(std::span<const uint8_t> bytes, int& width, int& height,
                        const DecodeLimits& limits) {
  return caught([&]() -> SampleFault {
    SampleFault unknown;
    if (sniff_format(bytes, unknown) == ImageFormat::kJpeg)
      return check_jpeg(bytes, width, height, limits);
    Image image;
    SampleFault fault = decode_image(bytes, image, limits);
    width = image.width;
    height = image.height;
    return fault;
  });
}

SampleFault probe_image(std::span<const uint8_t> bytes, int& width, int& height,
                        const DecodeLimits& limits) {
  return caught([&]() -> SampleFault {
    SampleFault unknown;
    const ImageFormat format = sniff_format(bytes, unknown);
    if (format == ImageFormat::kUnknown) return unknown;
    if (format == ImageFormat::kJpeg) return probe_jpeg(bytes, width, height, limits);
    ImageHeader header;
    if (auto fault = read_header(format, bytes, header); !fault.ok()) return named(format, fault);
    if (auto fault = check_size(header, limits); !fault.ok()) return named(format, fault);
    width = static_cast<int>(header.width);
    height = static_cast<int>(header.height);
    if (swaps_sides(header.orientation)) std::swap(width, height);
    return {};
  });
}

}  // namespace nf::data

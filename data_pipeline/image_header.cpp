// See image_header.h.
#include "data_pipeline/image_header.h"

#include <array>
#include <cstdio>
#include <cstring>
#include <string>

#include "data_pipeline/exif.h"

namespace nf::data {
namespace {

using Span = std::span<const uint8_t>;

bool starts_with(Span bytes, std::string_view magic, size_t at = 0) {
  return bytes.size() >= at + magic.size() &&
         std::memcmp(bytes.data() + at, magic.data(), magic.size()) == 0;
}

uint32_t be32(Span b, size_t at) {
  return uint32_t{b[at]} << 24 | uint32_t{b[at + 1]} << 16 | uint32_t{b[at + 2]} << 8 | b[at + 3];
}
uint32_t le16(Span b, size_t at) { return uint32_t{b[at]} | uint32_t{b[at + 1]} << 8; }
uint32_t le32(Span b, size_t at) { return le16(b, at) | le16(b, at + 2) << 16; }

// CRC-32 of PNG (ISO 3309, reflected polynomial 0xEDB88320).
constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t n = 0; n < 256; ++n) {
    uint32_t c = n;
    for (int k = 0; k < 8; ++k) c = (c & 1) != 0 ? 0xEDB88320U ^ (c >> 1) : c >> 1;
    table[n] = c;
  }
  return table;
}();

uint32_t png_crc(Span bytes) {
  uint32_t c = ~0U;
  for (const uint8_t b : bytes) c = kCrcTable[(c ^ b) & 0xFF] ^ (c >> 8);
  return ~c;
}

constexpr std::string_view kPngMagic = "\x89PNG\r\n\x1a\n";

struct PngChunk {
  size_t at = 0;  // of the length field
  uint32_t length = 0;
  std::string type;
  size_t data() const { return at + 8; }
  size_t end() const { return at + 12 + length; }
};

SampleFault next_png_chunk(Span bytes, size_t at, PngChunk& chunk) {
  if (bytes.size() - at < 12) return {"PNG: truncated, no IEND chunk"};
  chunk.at = at;
  chunk.length = be32(bytes, at);
  chunk.type.assign(reinterpret_cast<const char*>(bytes.data()) + at + 4, 4);
  for (const char c : chunk.type) {
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))) return {"PNG: broken chunk type"};
  }
  if (chunk.length > bytes.size() - at - 12) return {"PNG: truncated in chunk " + chunk.type};
  return {};
}

SampleFault read_ihdr(Span bytes, const PngChunk& chunk, ImageHeader& header) {
  if (chunk.type != "IHDR" || chunk.length != 13) return {"PNG: first chunk is not IHDR"};
  const size_t d = chunk.data();
  header.width = be32(bytes, d);
  header.height = be32(bytes, d + 4);
  const int depth = bytes[d + 8], color = bytes[d + 9];
  const bool small = depth == 1 || depth == 2 || depth == 4;
  const bool valid = color == 0                               ? small || depth == 8 || depth == 16
                     : color == 3                             ? small || depth == 8
                     : color == 2 || color == 4 || color == 6 ? depth == 8 || depth == 16
                                                              : false;
  if (!valid) return {"PNG: invalid colour type or bit depth"};
  if (bytes[d + 10] != 0 || bytes[d + 11] != 0 || bytes[d + 12] > 1) {
    return {"PNG: unknown compression, filter or interlace method"};
  }
  header.decoder_bytes = 4 * (depth == 16 ? 2 : 1);
  return {};
}

}  // namespace

ImageFormat sniff_format(Span bytes, SampleFault& reason) {
  reason = {};
  if (bytes.empty()) {
    reason = {"empty file"};
    return ImageFormat::kUnknown;
  }
  if (starts_with(bytes, "\xFF\xD8")) return ImageFormat::kJpeg;
  if (starts_with(bytes, kPngMagic)) return ImageFormat::kPng;
  if (starts_with(bytes, "BM")) return ImageFormat::kBmp;
  if (starts_with(bytes, "RIFF") && starts_with(bytes, "WEBP", 8)) return ImageFormat::kWebp;
  if (starts_with(bytes, std::string_view("II\x2A\0", 4)) ||
      starts_with(bytes, std::string_view("MM\0\x2A", 4))) {
    return ImageFormat::kTiff;
  }
  if (starts_with(bytes, "GIF8")) {
    reason = {"GIF is not supported"};
    return ImageFormat::kUnknown;
  }
  std::string hex;
  for (size_t i = 0; i < bytes.size() && i < 4; ++i) {
    char two[4];
    std::snprintf(two, sizeof two, " %02x", bytes[i]);
    hex += two;
  }
  reason = {"not an image in a known format (begins with" + hex + ")"};
  return ImageFormat::kUnknown;
}

SampleFault read_png_header(Span bytes, ImageHeader& header) {
  bool first = true, data = false;
  PngChunk chunk;
  for (size_t at = kPngMagic.size();; at = chunk.end()) {
    if (auto fault = next_png_chunk(bytes, at, chunk); !fault.ok()) return fault;
    if (png_crc(bytes.subspan(at + 4, size_t{chunk.length} + 4)) !=
        be32(bytes, at + 8 + chunk.length)) {
      return {"PNG: wrong CRC in chunk " + chunk.type};
    }
    if (first) {
      if (auto fault = read_ihdr(bytes, chunk, header); !fault.ok()) return fault;
    }
    first = false;
    data |= chunk.type == "IDAT";
    if (chunk.type == "eXIf")
      header.orientation = exif_orientation(bytes.subspan(chunk.data(), chunk.length));
    if (chunk.type == "IEND") break;
  }
  return data ? SampleFault{} : SampleFault{"PNG: no image data (IDAT)"};
}

std::vector<uint8_t> strip_png(Span bytes) {
  std::vector<uint8_t> kept(bytes.begin(),
                            bytes.begin() + static_cast<std::ptrdiff_t>(kPngMagic.size()));
  PngChunk chunk;
  for (size_t at = kPngMagic.size(); chunk.type != "IEND"; at = chunk.end()) {
    if (!next_png_chunk(bytes, at, chunk).ok()) break;
    if (chunk.type == "IHDR" || chunk.type == "PLTE" || chunk.type == "IDAT" ||
        chunk.type == "IEND") {
      const Span whole = bytes.subspan(at, chunk.end() - at);
      kept.insert(kept.end(), whole.begin(), whole.end());
    }
  }
  return kept;
}

SampleFault read_bmp_header(Span bytes, ImageHeader& header) {
  if (bytes.size() < 26) return {"BMP: truncated header"};
  const uint32_t dib = le32(bytes, 14);
  uint32_t bits = 0, compression = 0;
  if (dib == 12) {
    header.width = le16(bytes, 18);
    header.height = le16(bytes, 20);
    bits = le16(bytes, 24);
  } else if (dib >= 36 && dib <= 124 && bytes.size() >= 14 + size_t{dib}) {
    header.width = static_cast<int32_t>(le32(bytes, 18));
    header.height = static_cast<int32_t>(le32(bytes, 22));
    if (header.height < 0) header.height = -header.height;  // rows from top to bottom
    bits = le16(bytes, 28);
    compression = le32(bytes, 30);
    if (compression > 3) return {"BMP: unknown compression"};
  } else {
    return {"BMP: unknown header"};
  }
  if (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32) {
    return {"BMP: " + std::to_string(bits) + " bits per pixel"};
  }
  const bool run_length = compression == 1 || compression == 2;  // its length says nothing
  const int64_t row = (header.width * bits + 31) / 32 * 4;
  const int64_t available = static_cast<int64_t>(bytes.size()) - le32(bytes, 10);
  if (row > 0 && !run_length && header.height > available / row) return {"BMP: truncated"};
  header.decoder_bytes = 4;
  return {};
}

SampleFault read_webp_header(Span bytes, ImageHeader& header) {
  if (bytes.size() < 32) return {"WebP: truncated header"};
  if (le32(bytes, 4) > bytes.size() - 8) return {"WebP: truncated"};
  header.decoder_bytes = 12;
  bool found = false;
  const size_t end = 8 + size_t{le32(bytes, 4)};
  for (size_t at = 12; at + 8 <= end;) {
    const size_t size = le32(bytes, at + 4), data = at + 8;
    if (size > end - data) return {"WebP: truncated"};
    if (starts_with(bytes, "VP8X", at) && size >= 10) {
      if ((bytes[data] & 2) != 0) return {"WebP: animations are not supported"};
    } else if (starts_with(bytes, "VP8 ", at) && size >= 10 && !found) {
      header.width = le16(bytes, data + 6) & 0x3FFF;
      header.height = le16(bytes, data + 8) & 0x3FFF;
      found = true;
    } else if (starts_with(bytes, "VP8L", at) && size >= 5 && !found) {
      const uint32_t packed = le32(bytes, data + 1);
      header.width = (packed & 0x3FFF) + 1;
      header.height = (packed >> 14 & 0x3FFF) + 1;
      found = true;
    } else if (starts_with(bytes, "EXIF", at)) {
      Span exif = bytes.subspan(data, size);
      if (starts_with(exif, std::string_view("Exif\0\0", 6))) exif = exif.subspan(6);
      header.orientation = exif_orientation(exif);
    }
    at = data + size + (size & 1);
  }
  return found ? SampleFault{} : SampleFault{"WebP: no image data"};
}

}  // namespace nf::data

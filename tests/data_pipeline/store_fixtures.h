// Pictures, archives and processes for the tests of the data set store. Everything is drawn by
// arithmetic, so the tests need no files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "data_pipeline/decode.h"

namespace nf::test {

using ByteVector = std::vector<uint8_t>;

// A smooth picture with some noise; the same for equal arguments.
data::Image draw_picture(int width, int height, uint64_t seed);
ByteVector draw_jpeg(int width, int height, uint64_t seed);  // quality 90, as nf-pack encodes

enum class JpegKind {
  kRgb444,
  kGray,
  kProgressive,
  kGrayProgressive,
  kArithmetic,
  kCmykAdobe,
  kCmykBare,
  kYcck
};
// `picture` as RGB; for the CMYK kinds K is 255 and C, M, Y hold R, G, B, so the decoded picture is
// about the same.
ByteVector make_jpeg(const data::Image& picture, JpegKind kind);

// The JPEG with an EXIF block put behind its start marker.
ByteVector with_exif(const ByteVector& jpeg, const ByteVector& tiff);
ByteVector exif_block(int orientation, bool big_endian);

void write_bytes(const std::filesystem::path& file, const ByteVector& bytes);
ByteVector read_bytes(const std::filesystem::path& file);

// A folder of small JPEGs, CLASS/NAME.jpg, `per_class` in each of `classes` classes.
void draw_class_folders(const std::filesystem::path& folder, int classes, int per_class,
                        uint64_t seed);

// Members in the given order. Names over 100 characters get a GNU long name or, with `pax`, a pax
// header.
ByteVector make_tar(const std::vector<std::pair<std::string, ByteVector>>& members,
                    bool pax = false);

// SHA-256 of every file below the folder, by relative name.
std::map<std::string, std::string> hash_folder(const std::filesystem::path& folder);

struct Finished {
  int exit_code = -1;  // -1: ended by a signal
  std::string err, out;
  int64_t max_rss_bytes = 0;
};
// Runs a program to its end, or kills it with SIGKILL after `kill_after_us` microseconds when that
// is not negative.
Finished run_program(const std::filesystem::path& program,
                     const std::vector<std::string>& arguments, int64_t kill_after_us = -1);

}  // namespace nf::test

// See store_fixtures.h.
#include "tests/data_pipeline/store_fixtures.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <stdexcept>

#include "core/atomic_file.h"
#include "core/hash.h"
#include "data_pipeline/jpeg.h"
#include "tests/data_pipeline/jpeg_memory.h"
#include "tests/support/paths.h"

// The HDF5 library loses memory when it refuses a damaged file; leak checkers are to report ours
// only.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }
// NOLINTEND(bugprone-reserved-identifier)

namespace nf::test {
namespace fs = std::filesystem;

data::Image draw_picture(int width, int height, uint64_t seed) {
  data::Image image;
  image.width = width;
  image.height = height;
  uint64_t state = seed * 0x9E3779B97F4A7C15 + 1;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        const int smooth =
            static_cast<int>((seed * 37 + 5) % 64) + (x * (c + 2) + y * (4 - c)) * 3 % 160;
        image.rgb.push_back(static_cast<uint8_t>(smooth + static_cast<int>(state >> 60)));
      }
    }
  }
  return image;
}

ByteVector draw_jpeg(int width, int height, uint64_t seed) {
  return data::encode_jpeg(draw_picture(width, height, seed), 90);
}

ByteVector make_jpeg(const data::Image& picture, JpegKind kind) {
  const bool four =
      kind == JpegKind::kCmykAdobe || kind == JpegKind::kCmykBare || kind == JpegKind::kYcck;
  JpegMemory jpeg(picture.width, picture.height, four ? 4 : 3, four ? JCS_CMYK : JCS_RGB, 95);
  jpeg_compress_struct& cinfo = jpeg.cinfo;
  if (kind == JpegKind::kGray || kind == JpegKind::kGrayProgressive)
    jpeg_set_colorspace(&cinfo, JCS_GRAYSCALE);
  if (kind == JpegKind::kYcck) jpeg_set_colorspace(&cinfo, JCS_YCCK);
  if (kind == JpegKind::kCmykBare) cinfo.write_Adobe_marker = FALSE;
  for (int i = 0; i < cinfo.num_components; ++i)
    cinfo.comp_info[i].h_samp_factor = cinfo.comp_info[i].v_samp_factor = 1;
  if (kind == JpegKind::kProgressive || kind == JpegKind::kGrayProgressive)
    jpeg_simple_progression(&cinfo);
  if (kind == JpegKind::kArithmetic) cinfo.arith_code = TRUE;
  ByteVector line(static_cast<size_t>(picture.width) * 4, 255);
  return jpeg.write([&](size_t y) -> const uint8_t* {
    const uint8_t* from = picture.rgb.data() + size_t{3} * cinfo.image_width * y;
    const size_t channels = four ? 4 : 3;
    for (size_t x = 0; x < cinfo.image_width; ++x)
      std::memcpy(line.data() + channels * x, from + 3 * x, 3);
    return line.data();
  });
}

ByteVector with_exif(const ByteVector& jpeg, const ByteVector& tiff) {
  const size_t length = tiff.size() + 8;
  ByteVector out;
  out.reserve(jpeg.size() + length + 2);
  for (const int b : {0xFF, 0xD8, 0xFF, 0xE1}) out.push_back(static_cast<uint8_t>(b));
  out.push_back(static_cast<uint8_t>(length >> 8));
  out.push_back(static_cast<uint8_t>(length));
  for (const char c : {'E', 'x', 'i', 'f', '\0', '\0'}) out.push_back(static_cast<uint8_t>(c));
  std::copy(tiff.begin(), tiff.end(), std::back_inserter(out));
  std::copy(jpeg.begin() + 2, jpeg.end(), std::back_inserter(out));
  return out;
}

ByteVector exif_block(int orientation, bool big) {
  const auto value = static_cast<uint8_t>(orientation);
  if (big)
    return {'M', 'M', 0, 42, 0, 0, 0,     8, 0, 1, 0x01, 0x12, 0,
            3,   0,   0, 0,  1, 0, value, 0, 0, 0, 0,    0,    0};
  return {'I', 'I', 42, 0, 8, 0,     0, 0, 1, 0, 0x12, 0x01, 3,
          0,   1,   0,  0, 0, value, 0, 0, 0, 0, 0,    0,    0};
}

void write_bytes(const fs::path& file, const ByteVector& bytes) {
  fs::create_directories(file.parent_path());
  OutputFile out(file);
  out.write(bytes.data(), bytes.size());
}

ByteVector read_bytes(const fs::path& file) {
  const std::string text = read_file(file);
  return {text.begin(), text.end()};
}

void draw_class_folders(const fs::path& folder, int classes, int per_class, uint64_t seed) {
  for (int c = 0; c < classes; ++c) {
    for (int i = 0; i < per_class; ++i) {
      const uint64_t picture = seed + static_cast<uint64_t>(c * 1000 + i);
      const std::string name = "class" + std::to_string(c) + "/" + std::to_string(i) + ".jpg";
      write_bytes(folder / name, draw_jpeg(16 + static_cast<int>(picture % 9),
                                           12 + static_cast<int>(picture % 7), picture));
    }
  }
}

namespace {

void put_header(ByteVector& tar, const std::string& name, size_t size, char type) {
  char block[512] = {};
  std::copy_n(name.data(), std::min<size_t>(name.size(), 100), block);
  std::snprintf(block + 100, 8, "%07o", 0644);
  std::snprintf(block + 108, 8, "%07o", 0);
  std::snprintf(block + 116, 8, "%07o", 0);
  std::snprintf(block + 124, 12, "%011zo", size);
  std::snprintf(block + 136, 12, "%011o", 0);
  block[156] = type;
  std::copy_n("ustar\00000", 8, block + 257);
  std::memset(block + 148, ' ', 8);
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  std::snprintf(block + 148, 8, "%06o", sum);
  tar.insert(tar.end(), block, block + 512);
}

void put_bytes(ByteVector& tar, const ByteVector& bytes) {
  tar.insert(tar.end(), bytes.begin(), bytes.end());
  tar.resize((tar.size() + 511) / 512 * 512, 0);
}

ByteVector pax_path(const std::string& name) {
  const std::string record = " path=" + name + "\n";
  size_t length = record.size() + 1;
  while (std::to_string(length).size() + record.size() != length) ++length;
  const std::string text = std::to_string(length) + record;
  return {text.begin(), text.end()};
}

}  // namespace

ByteVector make_tar(const std::vector<std::pair<std::string, ByteVector>>& members, bool pax) {
  ByteVector tar;
  for (const auto& [name, bytes] : members) {
    if (name.size() > 100) {
      ByteVector extended = pax ? pax_path(name) : ByteVector(name.begin(), name.end());
      if (!pax) extended.push_back(0);
      put_header(tar, pax ? "PaxHeaders/x" : "././@LongLink", extended.size(), pax ? 'x' : 'L');
      put_bytes(tar, extended);
    }
    put_header(tar, name, bytes.size(), '0');
    put_bytes(tar, bytes);
  }
  tar.resize(tar.size() + 1024, 0);
  return tar;
}

std::map<std::string, std::string> hash_folder(const fs::path& folder) {
  std::map<std::string, std::string> hashes;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file())
      hashes[fs::relative(entry.path(), folder).string()] = sha256_file(entry.path());
  }
  return hashes;
}

Finished run_program(const fs::path& program, const std::vector<std::string>& arguments,
                     int64_t kill_after_us) {
  const TempDir scratch;
  const fs::path err = scratch / "err", out = scratch / "out";
  std::vector<std::string> words = {program.string()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const std::string err_name = err.string(), out_name = out.string();
  const pid_t child = ::fork();
  if (child == 0) {
    const int e = ::open(err_name.c_str(), O_WRONLY | O_CREAT, 0600),
              o = ::open(out_name.c_str(), O_WRONLY | O_CREAT, 0600);
    ::dup2(o, STDOUT_FILENO);
    ::dup2(e, STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  if (child < 0) throw std::runtime_error("fork failed");
  if (kill_after_us >= 0) {
    ::usleep(static_cast<useconds_t>(kill_after_us));
    ::kill(child, SIGKILL);
  }
  int status = 0;
  struct rusage usage {};
  ::wait4(child, &status, 0, &usage);
  Finished finished;
  finished.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  finished.err = fs::exists(err) ? read_file(err) : "";
  finished.out = fs::exists(out) ? read_file(out) : "";
  finished.max_rss_bytes = int64_t{usage.ru_maxrss} * 1024;
  return finished;
}

}  // namespace nf::test

// A small packed data set of drawn JPEGs, for tests of what reads data sets.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <opencv2/core.hpp>
#include <string>
#include <vector>

#include "core/rng.h"
#include "data_pipeline/pack.h"
#include "tests/data_pipeline/jpeg_memory.h"
#include "tests/support/paths.h"

namespace nf::test {

// Smooth colour fields with noise; sizes differ from image to image.
inline cv::Mat draw_image(uint64_t number) {
  PositionRng rng(11, Stream::kTest, number);
  const int width = 24 + static_cast<int>(rng.below(40)),
            height = 24 + static_cast<int>(rng.below(40));
  const double phase = rng.uniform(0, 6), step = rng.uniform(0.05, 0.3);
  cv::Mat image(height, width, CV_8UC3);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        const double wave = std::sin(phase + c + step * x) * std::cos(phase + step * y);
        image.at<cv::Vec3b>(y, x)[c] =
            static_cast<uint8_t>(120 + 90 * wave + static_cast<double>(rng.below(20)));
      }
    }
  }
  return image;
}

// A JPEG by libjpeg itself: OpenCV's encoder starts GDAL, whose own locks trouble ThreadSanitizer.
inline std::vector<uint8_t> encode_jpeg(const cv::Mat& image) {
  return JpegMemory(image.cols, image.rows, 3, JCS_RGB, 95).write([&](size_t y) {
    return image.ptr<uint8_t>(static_cast<int>(y));
  });
}

// `samples` images in 5 classes, packed as the split "train" in folder/set; returns that path.
inline std::filesystem::path draw_dataset(const TempDir& folder, uint64_t samples,
                                          uint64_t shard_samples) {
  for (uint64_t i = 0; i < samples; ++i) {
    const auto dir = folder / ("images/class" + std::to_string(i % 5));
    std::filesystem::create_directories(dir);
    const std::vector<uint8_t> jpeg = encode_jpeg(draw_image(i));
    std::ofstream((dir / (std::to_string(i) + ".jpg")), std::ios::binary)
        .write(reinterpret_cast<const char*>(jpeg.data()),
               static_cast<std::streamsize>(jpeg.size()));
  }
  data::PackOptions options;
  options.input = folder / "images";
  options.output = folder / "set";
  options.workers = 1;
  options.shard_samples = shard_samples;
  data::pack(options);
  return options.output;
}

// Flips one bit in the middle of the stored image bytes of a file.
inline void flip_bit(const std::filesystem::path& file, uint64_t at) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(at));
  const char byte = static_cast<char>(stream.get() ^ 0x10);
  stream.seekp(static_cast<std::streamoff>(at));
  stream.put(byte);
}

}  // namespace nf::test

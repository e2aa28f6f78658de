// The deterministic numbers behind the golden files, rebuilt without their makers' tools
// (tests/golden/nfnet/README.md): v(name, i), parameters, images, labels, and the statistics that
// the files hold instead of whole tensors. Torch-free, so that tests of any part can use them; a
// tensor is a vector of doubles in row-major order.
#pragma once

#include <cmath>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/paths.h"

namespace nf::test {

inline uint64_t fnv1a64(std::string_view text) {
  uint64_t h = 14695981039346656037ull;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return h;
}

// In [-1, 1): splitmix64 with the name's hash as seed. v_seeded saves hashing the name for each
// element.
inline double v_seeded(uint64_t seed, uint64_t i) {
  uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  z = z ^ (z >> 31);
  return 2.0 * (static_cast<double>(z >> 11) * 0x1.0p-53) - 1.0;
}
inline double v(std::string_view name, uint64_t i) { return v_seeded(fnv1a64(name), i); }

inline int64_t element_count(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

// The golden value of every element of a parameter.
inline std::vector<double> golden_parameter(const std::string& name,
                                            const std::vector<int64_t>& shape) {
  const auto ends = [&](std::string_view tail) { return std::string_view(name).ends_with(tail); };
  double offset = 0, factor = 0;
  const int64_t n = element_count(shape);
  if (ends("skipinit_gain")) {
    offset = 0.5, factor = 0.25;
  } else if (ends(".gain")) {
    offset = 1, factor = 0.1;
  } else if (ends(".bias")) {
    factor = 0.1;
  } else if (ends(".weight")) {
    factor = std::sqrt(3.0 / (static_cast<double>(n) / static_cast<double>(shape.at(0))));
  } else {
    throw std::invalid_argument("no golden rule for " + name);
  }
  const uint64_t seed = fnv1a64(name);
  std::vector<double> values(static_cast<size_t>(n));
  for (size_t i = 0; i < values.size(); ++i) values[i] = offset + factor * v_seeded(seed, i);
  return values;
}

// The image batch [batch, 3, height, width].
inline std::vector<double> golden_images(int64_t batch, int64_t height, int64_t width) {
  const int64_t coarse_h = (height + 7) / 8, coarse_w = (width + 7) / 8;
  const uint64_t coarse = fnv1a64("input.coarse"), fine = fnv1a64("input.fine");
  std::vector<double> values;
  values.reserve(static_cast<size_t>(batch * 3 * height * width));
  for (int64_t plane = 0; plane < batch * 3; ++plane)
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x) {
        const int64_t cell = (plane * coarse_h + y / 8) * coarse_w + x / 8;
        values.push_back(1.5 * v_seeded(coarse, static_cast<uint64_t>(cell)) +
                         0.5 * v_seeded(fine, values.size()));
      }
  return values;
}

inline std::vector<int64_t> golden_labels(int64_t batch, int64_t classes) {
  std::vector<int64_t> labels;
  for (int64_t b = 0; b < batch; ++b) labels.push_back((7 * b + 3) % classes);
  return labels;
}

// The statistics of a flattened tensor that the golden files hold.
struct GoldenStatistics {
  double sum = 0, sumsq = 0, dot = 0;
};
inline GoldenStatistics golden_statistics(const double* values, size_t count) {
  GoldenStatistics s;
  const uint64_t seed = fnv1a64("checksum");
  for (size_t i = 0; i < count; ++i) {
    s.sum += values[i];
    s.sumsq += values[i] * values[i];
    s.dot += values[i] * v_seeded(seed, i);
  }
  return s;
}

inline nlohmann::json golden_json(const std::string& name) {
  const auto path = golden("nfnet/" + name);
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot open " + path.string());
  return nlohmann::json::parse(file);
}

// |a - b| <= relative * max(|a|, |b|) + floor.
inline bool golden_near(double a, double b, double relative, double floor) {
  return std::abs(a - b) <= relative * std::max(std::abs(a), std::abs(b)) + floor;
}

}  // namespace nf::test

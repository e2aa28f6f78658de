// See normalize.h. A byte has 256 values, so what becomes of each in each channel is a table.
#include "trainer/normalize.h"

#include <ATen/Parallel.h>

#include <array>
#include <map>
#include <mutex>
#include <string>

namespace nf::train {
namespace {

constexpr std::array<float, 3> kMean = {0.485f, 0.456f, 0.406f}, kStd = {0.229f, 0.224f, 0.225f};
using Table = std::array<std::array<float, 256>, 3>;

Table make_table() {
  Table table;
  for (size_t c = 0; c < 3; ++c)
    for (size_t v = 0; v < 256; ++v)
      table[c][v] = (static_cast<float>(v) - kMean[c] * 255.0f) / (kStd[c] * 255.0f);
  return table;
}

at::Tensor on_cpu(const uint8_t* pixels, int64_t count, int64_t size) {
  static const Table table = make_table();
  at::Tensor out = at::empty({count, 3, size, size}, at::TensorOptions(at::kFloat),
                             at::MemoryFormat::ChannelsLast);
  float* const to = out.mutable_data_ptr<float>();
  at::parallel_for(0, count * size * size, 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (size_t c = 0; c < 3; ++c)
        to[3 * i + static_cast<int64_t>(c)] = table[c][pixels[3 * i + static_cast<int64_t>(c)]];
  });
  return out;
}

struct Constants {
  at::Tensor mean, deviation;  // of a byte's values, [1, 3, 1, 1]
};

// Made once for each device: such a copy waits for it.
const Constants& constants_on(at::Device device) {
  static std::mutex mutex;
  static auto& made = *new std::map<std::string, Constants>;  // outlives the device's runtime
  const std::lock_guard lock(mutex);
  auto [at, fresh] = made.try_emplace(device.str());
  if (fresh) {
    const auto constant = [&](const std::array<float, 3>& v) {
      return at::tensor(v, at::kFloat).mul_(255.0f).view({1, 3, 1, 1}).to(device);
    };
    at->second = {constant(kMean), constant(kStd)};
  }
  return at->second;
}

}  // namespace

at::MemoryFormat image_layout(at::Device device) {
  return device.is_cpu() ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

at::Tensor pixels_of(const data::MicroBatch& batch) {
  const int64_t s = batch.image_size;
  return at::from_blob(const_cast<uint8_t*>(batch.pixels.data()), {batch.count, s, s, 3},
                       at::kByte);
}

at::Tensor normalized_pixels(const at::Tensor& pixels, at::MemoryFormat layout) {
  const Constants& c = constants_on(pixels.device());
  const at::Tensor x =
      pixels.permute({0, 3, 1, 2}).to(at::kFloat, /*non_blocking=*/false, /*copy=*/false, layout);
  return x.sub_(c.mean).div_(c.deviation);
}

at::Tensor normalized_images(const data::MicroBatch& batch, at::Device device) {
  if (device.is_cpu()) return on_cpu(batch.pixels.data(), batch.count, batch.image_size);
  return normalized_pixels(pixels_of(batch).to(device), image_layout(device));
}

}  // namespace nf::train

// Micro-batches of a loader with their images on the device. On a GPU the next one can be on its
// way, on a stream of its own, while the device computes.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <optional>

#include "data_pipeline/loader.h"

namespace nf::train {

class ImageFeed {
 public:
  // The loader must outlive it, and is this object's alone to move.
  ImageFeed(data::Loader& loader, at::Device device);

  struct Item {
    data::MicroBatch batch;
    at::Tensor images;  // normalized_images()
  };
  // The loader's next micro-batch; nullopt after the last. Throws what Loader::next throws.
  std::optional<Item> next();

  // To be called when the device has work: takes the loader's next micro-batch and, on a GPU,
  // starts its copy there. A failure shows in the next() that would have given it.
  void fetch_ahead();

  void seek(uint64_t k);  // as Loader::seek; what was fetched ahead is dropped

 private:
  struct Ahead {
    data::MicroBatch batch;
    at::Tensor pixels;  // uint8 on the device
    std::optional<c10::Event> copied;
  };
  Ahead take(data::MicroBatch&& batch);

  data::Loader& loader_;
  at::Device device_;
  std::optional<c10::Stream> stream_;  // of the copies; none on the CPU
  std::optional<Ahead> ahead_;
};

}  // namespace nf::train

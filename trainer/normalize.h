// Pixels of the loader as the network's input.
#pragma once

#include <ATen/ATen.h>

#include "data_pipeline/loader.h"

namespace nf::train {

// How images lie in memory, and with them the activations of the whole network: NHWC on the CPU
// (where the network takes no other), NCHW on a GPU (docs/decisions/020).
at::MemoryFormat image_layout(at::Device device);

// [count, size, size, 3] uint8 of a micro-batch -> [count, 3, size, size] float32 on the device, in
// its layout, normalized with ImageNet's mean and standard deviation (spec section 11).
at::Tensor normalized_images(const data::MicroBatch& batch, at::Device device);

// The micro-batch's pixels in the loader's memory: uint8 [count, size, size, 3], no copy.
at::Tensor pixels_of(const data::MicroBatch& batch);
// normalized_images() of pixels that are on the device already, in any layout.
at::Tensor normalized_pixels(const at::Tensor& pixels, at::MemoryFormat layout);

}  // namespace nf::train

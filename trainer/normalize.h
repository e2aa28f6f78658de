// Pixels of the loader as the network's input.
#pragma once

#include <ATen/ATen.h>

#include "data_pipeline/loader.h"

namespace nf::train {

// [count, size, size, 3] uint8 of a micro-batch -> [count, 3, size, size] float32 on the device, in
// NHWC, normalized with ImageNet's mean and standard deviation (spec section 11).
at::Tensor normalized_images(const data::MicroBatch& batch, at::Device device);

}  // namespace nf::train

// The arithmetic peak that MFU is measured against.
#pragma once

#include <ATen/ATen.h>

namespace nf::train {

// FLOP/s of one rank's device: peak_tflops if given; a known GPU's dense bfloat16 peak
// (scaling_spec.md section 3); on a CPU the rate of a float32 matrix product, measured now with the
// threads that are set (about 0.2 s).
double peak_flops(at::Device device, double peak_tflops);

// FLOP/s of the fastest of `repeats` products of two side x side matrices, measured now.
double matmul_flops(at::Device device, at::ScalarType type, int64_t side, int repeats);

// Waits until the device has done all that it was given. A CPU always has.
void synchronize(at::Device device);

}  // namespace nf::train

// The launches of the fused operators' CUDA kernels: raw device pointers in, nothing allocated,
// nothing waited for. T and Out are float or uint16_t (the bits of a bfloat16); what they compute
// stands in the .cuh of the same name. Deterministic: one order of summation for any grid and any
// GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "models/nfnet/cuda/squeeze_excite.cuh"
#include "models/nfnet/cuda/standardize.cuh"

namespace nf::model::cuda {

template <class T>
cudaError_t gelu(const T* x, T* y, int64_t n, cudaStream_t stream);
template <class T>
cudaError_t gelu_backward(const T* grad, const T* x, T* dx, int64_t n, cudaStream_t stream);

// w [rows, rule.n], gain [rows]; out, grad like w.
template <class Out>
cudaError_t standardize(const float* w, const float* gain, Out* out, int64_t rows,
                        const StandardizeRule& rule, cudaStream_t stream);
template <class Grad>
cudaError_t standardize_backward(const float* w, const float* gain, const Grad* grad, float* grad_w,
                                 float* grad_gain, int64_t rows, const StandardizeRule& rule,
                                 cudaStream_t stream);

// NHWC. out [images, channels] = factor * the sums; parts: room for pixel_parts(pixels) * images *
// channels floats, unused where there is one part.
template <class T>
cudaError_t pixel_sums(const PixelSums<T>& in, int64_t images, float factor, float* parts,
                       float* out, cudaStream_t stream);
template <class T>
cudaError_t scaled_sum(const ScaledSum<T>& sum, int64_t images, cudaStream_t stream);

// The same on NCHW tensors.
template <class T>
cudaError_t pixel_sums_nchw(const PixelSums<T>& in, int64_t images, float factor, float* out,
                            cudaStream_t stream);
template <class T>
cudaError_t scaled_sum_nchw(const ScaledSum<T>& sum, int64_t images, cudaStream_t stream);

}  // namespace nf::model::cuda

// See kernels.h and standardize.cuh. A block does one output's weights, which stay in its cache
// between the passes.
#include "core/device_block.cuh"
#include "models/nfnet/cuda/kernels.h"
#include "models/nfnet/cuda/standardize.cuh"

namespace nf::model::cuda {
namespace {

using RowBlock = DeviceBlock<128>;

template <class Out>
__global__ void __launch_bounds__(RowBlock::kThreads)
    forward_kernel(const float* w, const float* gain, Out* out, StandardizeRule rule) {
  __shared__ double scratch[kReduceScratch<RowBlock>];
  const int64_t row = blockIdx.x, first = row * rule.n;
  standardize_row(RowBlock{}, scratch, rule, w + first, gain[row], out + first);
}

template <class Grad>
__global__ void __launch_bounds__(RowBlock::kThreads)
    backward_kernel(const float* w, const float* gain, const Grad* grad, float* grad_w,
                    float* grad_gain, StandardizeRule rule) {
  __shared__ double scratch[2 * kReduceScratch<RowBlock>];
  const int64_t row = blockIdx.x, first = row * rule.n;
  standardize_row_backward(RowBlock{}, scratch, rule, w + first, gain[row], grad + first,
                           grad_w + first, grad_gain + row);
}

}  // namespace

template <class Out>
cudaError_t standardize(const float* w, const float* gain, Out* out, int64_t rows,
                        const StandardizeRule& rule, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  forward_kernel<<<static_cast<unsigned>(rows), RowBlock::kThreads, 0, stream>>>(w, gain, out,
                                                                                 rule);
  return cudaGetLastError();
}

template <class Grad>
cudaError_t standardize_backward(const float* w, const float* gain, const Grad* grad, float* grad_w,
                                 float* grad_gain, int64_t rows, const StandardizeRule& rule,
                                 cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  backward_kernel<<<static_cast<unsigned>(rows), RowBlock::kThreads, 0, stream>>>(
      w, gain, grad, grad_w, grad_gain, rule);
  return cudaGetLastError();
}

template cudaError_t standardize(const float*, const float*, float*, int64_t,
                                 const StandardizeRule&, cudaStream_t);
template cudaError_t standardize(const float*, const float*, uint16_t*, int64_t,
                                 const StandardizeRule&, cudaStream_t);
template cudaError_t standardize_backward(const float*, const float*, const float*, float*, float*,
                                          int64_t, const StandardizeRule&, cudaStream_t);
template cudaError_t standardize_backward(const float*, const float*, const uint16_t*, float*,
                                          float*, int64_t, const StandardizeRule&, cudaStream_t);

}  // namespace nf::model::cuda

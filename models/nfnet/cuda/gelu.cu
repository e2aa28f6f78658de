// See kernels.h and gelu.cuh. A thread does 16 bytes; one pass over memory each.
#include "models/nfnet/cuda/gelu.cuh"
#include "models/nfnet/cuda/kernels.h"
#include "models/nfnet/cuda/launch.cuh"

namespace nf::model::cuda {
namespace {

template <int kCount, class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(const T* x, T* y, int64_t n) {
  gelu_pack<kCount>(x, y, thread_number() * kCount, n);
}

template <int kCount, class T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const T* grad, const T* x, T* dx, int64_t n) {
  gelu_backward_pack<kCount>(grad, x, dx, thread_number() * kCount, n);
}

}  // namespace

template <class T>
cudaError_t gelu(const T* x, T* y, int64_t n, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  constexpr int kCount = kPackOf<T>;
  if (aligned(x, y))
    forward_kernel<kCount><<<blocks_for(n, kCount), kThreads, 0, stream>>>(x, y, n);
  else
    forward_kernel<1><<<blocks_for(n, 1), kThreads, 0, stream>>>(x, y, n);
  return cudaGetLastError();
}

template <class T>
cudaError_t gelu_backward(const T* grad, const T* x, T* dx, int64_t n, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  constexpr int kCount = kPackOf<T>;
  if (aligned(grad, x, dx))
    backward_kernel<kCount><<<blocks_for(n, kCount), kThreads, 0, stream>>>(grad, x, dx, n);
  else
    backward_kernel<1><<<blocks_for(n, 1), kThreads, 0, stream>>>(grad, x, dx, n);
  return cudaGetLastError();
}

template cudaError_t gelu(const float*, float*, int64_t, cudaStream_t);
template cudaError_t gelu(const uint16_t*, uint16_t*, int64_t, cudaStream_t);
template cudaError_t gelu_backward(const float*, const float*, float*, int64_t, cudaStream_t);
template cudaError_t gelu_backward(const uint16_t*, const uint16_t*, uint16_t*, int64_t,
                                   cudaStream_t);

}  // namespace nf::model::cuda

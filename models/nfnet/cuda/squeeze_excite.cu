// See kernels.h and squeeze_excite.cuh. What does not divide by a pack, or is not aligned to 16
// bytes, goes element by element.
#include <algorithm>

#include "core/device_block.cuh"
#include "models/nfnet/cuda/kernels.h"
#include "models/nfnet/cuda/launch.cuh"
#include "models/nfnet/cuda/squeeze_excite.cuh"

namespace nf::model::cuda {
namespace {

using PartBlock = DeviceBlock<kPartThreads>;
constexpr int64_t kMostBlocksY = 65535;

// Block (x, y, z): packs from x * kPartPacks, part y, image z. to: [image, part, channel].
template <int kCount, class T>
__global__ void __launch_bounds__(kPartThreads)
    part_kernel(PixelSums<T> in, int64_t images, float factor, float* to) {
  __shared__ float scratch[kPartScratch<kCount>];
  const int64_t parts = gridDim.y, part = blockIdx.y;
  for (int64_t image = blockIdx.z; image < images; image += gridDim.z)
    sum_part<kCount>(PartBlock{}, scratch, in, image, part,
                     static_cast<int64_t>(blockIdx.x) * kPartPacks, factor,
                     to + (image * parts + part) * in.channels);
}

__global__ void __launch_bounds__(kThreads)
    total_kernel(const float* from, int64_t parts, int64_t channels, int64_t n, float factor,
                 float* out) {
  const int64_t i = thread_number();
  if (i < n)
    out[i] = sum_of_parts(from + (i / channels) * parts * channels + i % channels, parts, channels,
                          factor);
}

template <int kCount, class T>
void launch_parts(const PixelSums<T>& in, int64_t images, int64_t parts, float factor, float* to,
                  cudaStream_t stream) {
  constexpr int64_t kColumns = kPartPacks * kCount;
  const dim3 grid(static_cast<unsigned>((in.channels + kColumns - 1) / kColumns),
                  static_cast<unsigned>(parts),
                  static_cast<unsigned>(std::min(images, kMostBlocksY)));
  part_kernel<kCount><<<grid, kPartThreads, 0, stream>>>(in, images, factor, to);
}

template <int kCount, class T>
__global__ void __launch_bounds__(kThreads) scaled_kernel(ScaledSum<T> s, int64_t images) {
  const auto pack = static_cast<uint32_t>(thread_number());
  if (pack >= s.pixels * s.channels / kCount) return;
  for (int64_t image = blockIdx.y; image < images; image += gridDim.y)
    scaled_sum_pack<kCount>(s, image, pack);
}

template <int kCount, class T>
void launch_scaled(const ScaledSum<T>& s, int64_t images, cudaStream_t stream) {
  const dim3 grid(blocks_for(s.pixels * s.channels, kCount),
                  static_cast<unsigned>(std::min(images, kMostBlocksY)));
  scaled_kernel<kCount><<<grid, kThreads, 0, stream>>>(s, images);
}

template <int kCount, class T>
__global__ void __launch_bounds__(kPartThreads)
    row_kernel(PixelSums<T> in, int64_t rows, float factor, float* out) {
  __shared__ float scratch[kPartThreads];
  sum_rows<kCount>(PartBlock{}, scratch, in, rows, static_cast<int64_t>(blockIdx.x) * kRowsOfBlock,
                   factor, out);
}

template <int kCount, class T>
void launch_rows(const PixelSums<T>& in, int64_t rows, float factor, float* out,
                 cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((rows + kRowsOfBlock - 1) / kRowsOfBlock);
  row_kernel<kCount><<<blocks, kPartThreads, 0, stream>>>(in, rows, factor, out);
}

template <int kCount, class T>
__global__ void __launch_bounds__(kThreads) scaled_row_kernel(ScaledSum<T> s, int64_t packs) {
  const int64_t pack = thread_number();
  if (pack < packs) scaled_row_pack<kCount>(s, pack);
}

template <int kCount, class T>
void launch_scaled_rows(const ScaledSum<T>& s, int64_t elements, cudaStream_t stream) {
  scaled_row_kernel<kCount>
      <<<blocks_for(elements, kCount), kThreads, 0, stream>>>(s, elements / kCount);
}

}  // namespace

template <class T>
cudaError_t pixel_sums(const PixelSums<T>& in, int64_t images, float factor, float* parts,
                       float* out, cudaStream_t stream) {
  const int64_t n = images * in.channels, count = pixel_parts(in.pixels);
  if (n == 0) return cudaSuccess;
  if (count > kMostBlocksY) return cudaErrorInvalidValue;
  const bool packs = in.channels % kPackOf<T> == 0 && aligned(in.o, in.other);
  float* const to = count == 1 ? out : parts;
  const float first_factor = count == 1 ? factor : 1.0F;
  if (packs)
    launch_parts<kPackOf<T>>(in, images, count, first_factor, to, stream);
  else
    launch_parts<1>(in, images, count, first_factor, to, stream);
  if (count > 1)
    total_kernel<<<blocks_for(n, 1), kThreads, 0, stream>>>(parts, count, in.channels, n, factor,
                                                            out);
  return cudaGetLastError();
}

template <class T>
cudaError_t scaled_sum(const ScaledSum<T>& s, int64_t images, cudaStream_t stream) {
  const int64_t per_image = s.pixels * s.channels;
  if (images * per_image == 0) return cudaSuccess;
  if (per_image > INT32_MAX) return cudaErrorInvalidValue;
  if (s.channels % kPackOf<T> == 0 && aligned(s.x, s.added, s.out, s.factor, s.added_per_channel))
    launch_scaled<kPackOf<T>>(s, images, stream);
  else
    launch_scaled<1>(s, images, stream);
  return cudaGetLastError();
}

template <class T>
cudaError_t pixel_sums_nchw(const PixelSums<T>& in, int64_t images, float factor, float* out,
                            cudaStream_t stream) {
  constexpr int kHalf = kPackOf<T> / 2;  // 14 x 14 pixels divide by 4
  const int64_t rows = images * in.channels;
  if (rows == 0) return cudaSuccess;
  if (rows / kRowsOfBlock >= INT32_MAX) return cudaErrorInvalidValue;
  const bool packs = aligned(in.o, in.other);
  if (packs && in.pixels % kPackOf<T> == 0)
    launch_rows<kPackOf<T>>(in, rows, factor, out, stream);
  else if (packs && in.pixels % kHalf == 0)
    launch_rows<kHalf>(in, rows, factor, out, stream);
  else
    launch_rows<1>(in, rows, factor, out, stream);
  return cudaGetLastError();
}

template <class T>
cudaError_t scaled_sum_nchw(const ScaledSum<T>& s, int64_t images, cudaStream_t stream) {
  const int64_t elements = images * s.channels * s.pixels;
  if (elements == 0) return cudaSuccess;
  if (elements / kThreads >= INT32_MAX) return cudaErrorInvalidValue;
  if (elements % kPackOf<T> == 0 && s.pixels >= kPackOf<T> && aligned(s.x, s.added, s.out))
    launch_scaled_rows<kPackOf<T>>(s, elements, stream);
  else
    launch_scaled_rows<1>(s, elements, stream);
  return cudaGetLastError();
}

template cudaError_t pixel_sums(const PixelSums<float>&, int64_t, float, float*, float*,
                                cudaStream_t);
template cudaError_t pixel_sums(const PixelSums<uint16_t>&, int64_t, float, float*, float*,
                                cudaStream_t);
template cudaError_t scaled_sum(const ScaledSum<float>&, int64_t, cudaStream_t);
template cudaError_t scaled_sum(const ScaledSum<uint16_t>&, int64_t, cudaStream_t);
template cudaError_t pixel_sums_nchw(const PixelSums<float>&, int64_t, float, float*, cudaStream_t);
template cudaError_t pixel_sums_nchw(const PixelSums<uint16_t>&, int64_t, float, float*,
                                     cudaStream_t);
template cudaError_t scaled_sum_nchw(const ScaledSum<float>&, int64_t, cudaStream_t);
template cudaError_t scaled_sum_nchw(const ScaledSum<uint16_t>&, int64_t, cudaStream_t);

}  // namespace nf::model::cuda

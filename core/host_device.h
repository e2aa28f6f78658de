// What arithmetic needs to be written once and compiled twice: by nvcc into a CUDA kernel, and by
// the host's compiler into the twin that tests run on any machine. Work of a block of threads is a
// template over Block, which offers
//   kThreads;  PerThread<T>: one T for each thread, v[t];
//   each(body): body(t) for every thread t, and all have finished before anything after it.
// DeviceBlock (core/device_block.cuh) is the real one, HostBlock (tests/support) a loop.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define NF_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define NF_HOST_DEVICE [[gnu::always_inline]] inline
#endif

namespace nf {

template <class To, class From>
NF_HOST_DEVICE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// The type that arithmetic on T is done in. bfloat16 is seen as its 16 bits, so that compilers
// vectorize the conversion.
template <class T>
struct Arithmetic {
  using Type = T;
};
template <>
struct Arithmetic<uint16_t> {
  using Type = float;
};

NF_HOST_DEVICE float load(float x) { return x; }
NF_HOST_DEVICE double load(double x) { return x; }
NF_HOST_DEVICE float load(uint16_t bits) {
  return bits_as<float>(static_cast<uint32_t>(bits) << 16);
}
NF_HOST_DEVICE void store(float& to, float x) { to = x; }
NF_HOST_DEVICE void store(double& to, double x) { to = x; }
NF_HOST_DEVICE void store(uint16_t& to, float x) {  // to nearest, ties to even
  const auto bits = bits_as<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to = static_cast<uint16_t>(x == x ? rounded : 0x7fc0);
}

// Neighbouring elements that a GPU moves in one access. kPackOf<T> of them are 16 bytes.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount > 16 ? 16 : sizeof(T) * kCount) Pack {
  T at[kCount];
};
template <class T>
constexpr int kPackOf = static_cast<int>(16 / sizeof(T));

template <int kCount, class T>
NF_HOST_DEVICE Pack<T, kCount> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, kCount>*>(from);
}
template <int kCount, class T>
NF_HOST_DEVICE void store_pack(T* to, const Pack<T, kCount>& pack) {
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}

constexpr int kReduceLanes = 16;
template <class Block>
constexpr int kReduceScratch = Block::kThreads + kReduceLanes;  // doubles

// All threads' values combined, for every thread, in an order that depends on kThreads alone:
// lane l takes values l, l + 16, l + 32, ..., then the lanes are combined from 0 on. `scratch` may
// be used by the next reduction at once.
template <class Block, class Combine>
NF_HOST_DEVICE double block_reduce(const Block& block,
                                   const typename Block::template PerThread<double>& value,
                                   double* scratch, const Combine& combine) {
  double* const lanes = scratch + Block::kThreads;
  block.each([&](int t) { scratch[t] = value[t]; });
  block.each([&](int t) {
    if (t >= kReduceLanes) return;
    double part = scratch[t];
    for (int i = t + kReduceLanes; i < Block::kThreads; i += kReduceLanes)
      part = combine(part, scratch[i]);
    lanes[t] = part;
  });
  double total = lanes[0];
  for (int l = 1; l < kReduceLanes; ++l) total = combine(total, lanes[l]);
  return total;
}

template <class Block>
NF_HOST_DEVICE double block_sum(const Block& block,
                                const typename Block::template PerThread<double>& value,
                                double* scratch) {
  return block_reduce(block, value, scratch, [](double a, double b) { return a + b; });
}

}  // namespace nf

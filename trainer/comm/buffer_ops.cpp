// See buffer_ops.h.
#include "trainer/comm/buffer_ops.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "core/check.h"

namespace nf::train {

std::shared_ptr<float[]> HostBufferOps::allocate(size_t elements) {
  constexpr std::align_val_t kAlignment{64};
  auto* memory = static_cast<float*>(::operator new[](elements * sizeof(float), kAlignment));
  return {memory, [](float* p) { ::operator delete[](p, kAlignment); }};
}

void HostBufferOps::copy(float* to, const float* from, size_t elements) {
  if (elements > 0) std::memcpy(to, from, elements * sizeof(float));
}

void HostBufferOps::add(std::span<float* const> operands, std::span<const Addition> order,
                        size_t elements) {
  for (const Addition& a : order) NF_CHECK(a.into < operands.size() && a.from < operands.size());
  constexpr size_t kBlock = 4096;  // 16 KiB an operand: a block's whole tree stays in cache
  for (size_t begin = 0; begin < elements; begin += kBlock) {
    const size_t n = std::min(kBlock, elements - begin);
    for (const Addition& a : order) {
      float* __restrict into = operands[a.into] + begin;
      const float* __restrict from = operands[a.from] + begin;
      for (size_t i = 0; i < n; ++i) into[i] += from[i];
    }
  }
}

}  // namespace nf::train

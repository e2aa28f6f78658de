// See buffer_ops.h.
#include "trainer/comm/buffer_ops.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>

#include "core/check.h"
#include "core/finite.h"

namespace nf::train {
namespace {

// into[i] += from[i]; whether all sums are finite.
bool add_block(float* __restrict into, const float* __restrict from, size_t n) {
  uint32_t bad = 0;
  for (size_t i = 0; i < n; ++i) {
    const float sum = into[i] + from[i];
    into[i] = sum;
    bad |= not_finite(sum);
  }
  return bad == 0;
}

}  // namespace

std::shared_ptr<float[]> HostBufferOps::allocate(size_t elements) {
  constexpr std::align_val_t kAlignment{64};
  auto* memory = static_cast<float*>(::operator new[](elements * sizeof(float), kAlignment));
  return {memory, [](float* p) { ::operator delete[](p, kAlignment); }};
}

void HostBufferOps::copy(float* to, const float* from, size_t elements) {
  if (elements > 0) std::memcpy(to, from, elements * sizeof(float));
}

bool HostBufferOps::add(std::span<float* const> operands, std::span<const Addition> order,
                        size_t elements) {
  if (order.empty()) return false;
  for (const Addition& a : order) NF_CHECK(a.into < operands.size() && a.from < operands.size());
  bool finite = true;
  constexpr size_t kBlock = 4096;  // 16 KiB an operand: a block's whole tree stays in cache
  for (size_t begin = 0; begin < elements; begin += kBlock) {
    const size_t n = std::min(kBlock, elements - begin);
    bool block = true;  // of the last addition
    for (const Addition& a : order)
      block = add_block(operands[a.into] + begin, operands[a.from] + begin, n);
    finite = finite && block;
  }
  return finite;
}

}  // namespace nf::train

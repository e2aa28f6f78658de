// Where gradient buffers live and who adds them: host memory here, device memory in the CUDA
// plug-in. The reducer only says what is added to what, in which order (sum_tree.h), so both give
// the same bits.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "trainer/comm/sum_tree.h"

namespace nf::train {

class BufferOps {
 public:
  virtual ~BufferOps() = default;
  // 64-byte aligned, content undefined.
  virtual std::shared_ptr<float[]> allocate(size_t elements) = 0;
  virtual void copy(float* to, const float* from, size_t elements) = 0;
  // For every element i and every addition in order: operands[into][i] += operands[from][i].
  // Operands do not overlap. Returns whether what the last addition left is known to be finite.
  virtual bool add(std::span<float* const> operands, std::span<const Addition> order,
                   size_t elements) = 0;
};

class HostBufferOps final : public BufferOps {
 public:
  std::shared_ptr<float[]> allocate(size_t elements) override;
  void copy(float* to, const float* from, size_t elements) override;
  bool add(std::span<float* const> operands, std::span<const Addition> order,
           size_t elements) override;
};

}  // namespace nf::train

// Sums the gradients of a step's V micro-batches in one fixed binary tree, whatever the number of ranks: the same bits for
// every W from 1 to V. Tree: aligned ranges; node [k 2^j, (k+1) 2^j) = left + right, a missing right side is skipped.
// A rank folds its own micro-batches into maximal aligned subtrees; ranks exchange slices, each finishes its slice, then all
// gather. design.md section 4.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "trainer/comm/communicator.h"

namespace nf::train {

enum class Reduction { kExact, kFast };

class GradReducer {
 public:
  // elements: length of the flat gradient (float32). micro_batches: V; the rank's range follows from comm's rank and size.
  GradReducer(Communicator& comm, uint64_t micro_batches, size_t elements, Reduction reduction);
  ~GradReducer();

  // The flat buffer that the next micro-batch's gradient goes to (elements long, 64-byte aligned, content undefined).
  std::span<float> buffer();
  // Takes the buffer as the gradient of this rank's micro-batch m (ascending order, each exactly once per step).
  void add(uint64_t micro_batch);
  // After the rank's last add: the sum over all V micro-batches, on every rank; valid until the next buffer().
  std::span<const float> finish();

  // The same tree over scalars that every rank already has one value per own micro-batch of (losses in double).
  static double tree_sum(std::span<const double> leaves);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// First and last (exclusive) micro-batch of a rank: floor(r V / W), floor((r + 1) V / W).
std::pair<uint64_t, uint64_t> micro_batch_range(uint64_t micro_batches, int rank, int world);

}  // namespace nf::train

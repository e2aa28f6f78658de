// Sums the gradients of a step's V micro-batches in one fixed binary tree, whatever the number of
// ranks: the same bits for every W from 1 to V. Tree: aligned ranges; node [k 2^j, (k+1) 2^j) =
// left + right, a missing right side is skipped. A rank folds its own micro-batches into maximal
// aligned subtrees; ranks exchange slices, each finishes its slice, then all gather. design.md
// section 4.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "trainer/comm/buffer_ops.h"
#include "trainer/comm/communicator.h"

namespace nf::train {

enum class Reduction { kExact, kFast };

// "exact" or "fast" (comm.reduction); anything else throws Error(kUsage).
Reduction parse_reduction(std::string_view text);

// Exchanges are cut into buckets of this many elements (16 MiB), so that staging memory does not
// grow with the model. The sum is element by element, so bucket and slice borders cannot change a
// bit.
inline constexpr size_t kBucketElements = size_t{1} << 22;

class GradReducer {
 public:
  // elements: length of the flat gradient (float32). micro_batches: V; the rank's range follows
  // from comm's rank and size. More ranks than micro-batches throws Error(kUsage). ops (host memory
  // when null) must fit comm and outlive the reducer. Memory: one buffer per held subtree, log2(V /
  // W) + 1 when V and W are powers of two, and about 2 buckets.
  GradReducer(Communicator& comm, uint64_t micro_batches, size_t elements, Reduction reduction,
              BufferOps* ops = nullptr, size_t bucket_elements = kBucketElements);
  ~GradReducer();

  // The flat buffer that the next micro-batch's gradient goes to (elements long, 64-byte aligned,
  // content undefined).
  std::span<float> buffer();
  // A rank whose micro-batch has no valid sample fills it with zeros.
  // Takes the buffer as the gradient of this rank's micro-batch m (ascending order, each exactly
  // once per step).
  void add(uint64_t micro_batch);
  // After the rank's last add: the sum over all V micro-batches, on every rank; valid until the
  // next buffer().
  std::span<const float> finish();

  // Gradient-sized buffers allocated so far, for memory accounts.
  size_t buffers() const;

  // The same tree over scalars, one per micro-batch in order (losses in double; see gather_leaves).
  static double tree_sum(std::span<const double> leaves);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// First and last (exclusive) micro-batch of a rank: floor(r V / W), floor((r + 1) V / W).
std::pair<uint64_t, uint64_t> micro_batch_range(uint64_t micro_batches, int rank, int world);

// Each rank gives one value per own micro-batch, in order; every rank gets all V, in order, bit for
// bit.
std::vector<double> gather_leaves(Communicator& comm, uint64_t micro_batches,
                                  std::span<const double> own);

}  // namespace nf::train

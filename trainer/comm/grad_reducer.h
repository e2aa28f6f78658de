// Sums the gradients of a step's V micro-batches in one fixed binary tree, whatever the number of
// ranks: the same bits for every W from 1 to V. Tree: aligned ranges; node [k 2^j, (k+1) 2^j) =
// left + right, a missing right side is skipped. A rank folds its own micro-batches into maximal
// aligned subtrees; then each rank finishes its slice of every bucket in tree order. Buckets are
// exchanged by a thread of their own while the last micro-batch's backward still fills the ones
// below. design.md section 4.
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

namespace nf {
class Timeline;
}

namespace nf::train {

enum class Reduction {
  kExact,   // the fixed tree
  kFast,    // the library's all-reduce: other bits for another number of ranks
  kFixed64  // integers: no order of additions, all micro-batches kept; the oracle
};

// "exact", "fast" or "fixed64" (comm.reduction); anything else throws Error(kUsage).
Reduction parse_reduction(std::string_view text);

struct ReducerOptions {
  Reduction reduction = Reduction::kExact;
  BufferOps* ops = nullptr;    // null: host memory; must fit comm and outlive the reducer
  size_t bucket_elements = 0;  // 0: chosen from the length; never changes a bit of an exact sum
  bool shared_memory = true;   // ranks of one host add in shared memory; never changes a bit
};

class GradReducer {
 public:
  // elements: length of the flat gradient (float32). micro_batches: V; the rank's range follows
  // from comm's rank and size. More ranks than micro-batches throws Error(kUsage). Collective.
  // Memory: one buffer per held subtree (log2(V / W) + 1 when V and W are powers of two); with
  // messages about 2 buckets more.
  GradReducer(Communicator& comm, uint64_t micro_batches, size_t elements,
              const ReducerOptions& options = {});
  ~GradReducer();

  // The flat buffer that the next micro-batch's gradient goes to (elements long, 64-byte aligned,
  // content undefined).
  std::span<float> buffer();
  // While the last micro-batch's gradient is written, from the end to the front: all elements from
  // `offset` on are final. Lets their exchange begin; ignored for other micro-batches.
  void ready_from(size_t offset);
  // Takes the buffer as the gradient of this rank's micro-batch m (ascending order, each exactly
  // once per step). A micro-batch without a valid sample is filled with zeros. finite: whether the
  // gradient is known to be.
  void add(uint64_t micro_batch, bool finite = false);
  // After the rank's last add: the sum over all V micro-batches, on every rank. Rethrows what went
  // wrong in the exchange.
  std::span<const float> finish();
  // After finish(): whether the part of the sum that this rank added up is known to be finite. It
  // costs nothing: the additions look at what they write.
  bool finite() const;
  // The sum is not read any more; the next buffer() does it too.
  void release();

  size_t buffers() const;               // gradient-sized buffers, for memory accounts
  bool in_shared_memory() const;        // the exchange moves no message
  double exchange_cpu_seconds() const;  // CPU time of the exchange thread so far
  // Spans of the exchange, from the next step on; null: none. Between steps only.
  void record(std::shared_ptr<Timeline> timeline);

  // The same tree over scalars, one per micro-batch in order (losses in double).
  static double tree_sum(std::span<const double> leaves);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// First and last (exclusive) micro-batch of a rank: floor(r V / W), floor((r + 1) V / W).
std::pair<uint64_t, uint64_t> micro_batch_range(uint64_t micro_batches, int rank, int world);

}  // namespace nf::train

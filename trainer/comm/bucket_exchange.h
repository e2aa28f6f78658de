// How the partial sums of all ranks become the total on every rank, a range of elements (bucket) at
// a time. Two ways: in place in shared memory for the ranks of one host, by messages otherwise; one
// more sums integers and serves as the oracle. The reducer (grad_reducer.h) calls; the bits do not
// depend on the way, except for reductions that are not "exact".
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "trainer/comm/buffer_ops.h"
#include "trainer/comm/communicator.h"
#include "trainer/comm/sum_tree.h"

namespace nf::train {

class BucketExchange {
 public:
  virtual ~BucketExchange() = default;
  // This rank's fold buffer, `elements` long, 64-byte aligned.
  virtual float* buffer(size_t index) = 0;
  // Before the first buffer of a step is written.
  virtual void begin_step() {}
  // Sums elements [begin, end) over all ranks' held buffers. Every rank makes the same calls in the
  // same order, each once its own held buffers are final there. Returns whether the part of the sum
  // that this rank added up is known to be finite.
  virtual bool exchange(size_t begin, size_t end) = 0;
  // After the step's last exchange(): the total, readable until release().
  virtual const float* finish() = 0;
  virtual void release() {}
};

// What an exchange is made of; plans[r] is rank r's. comm and ops must outlive it.
struct ExchangeParts {
  Communicator& comm;
  BufferOps& ops;
  std::vector<FoldPlan> plans;
  uint64_t leaves = 0;
  size_t elements = 0;
};

// In memory that the ranks share: each owns a slice of every bucket and adds it up where it lies,
// in the buffers of others too; nothing is copied. Null when the ranks cannot share memory
// (collective).
std::unique_ptr<BucketExchange> make_peer_exchange(const ExchangeParts& parts);
// All-to-all, additions, all-gather: the traffic of a ring all-reduce when V and W are powers of
// two.
std::unique_ptr<BucketExchange> make_message_exchange(const ExchangeParts& parts);
// The library's own all-reduce of floats: any order of additions.
std::unique_ptr<BucketExchange> make_library_exchange(const ExchangeParts& parts);
// Sums of 64-bit integers, which no order can change: each bucket's numbers are scaled by a power
// of two that all ranks agree on. Every micro-batch keeps its buffer; slow, an oracle for tests.
std::unique_ptr<BucketExchange> make_fixed64_exchange(const ExchangeParts& parts);

}  // namespace nf::train

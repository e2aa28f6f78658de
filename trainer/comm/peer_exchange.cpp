// The exchange in shared memory; see bucket_exchange.h. Each rank's block holds three counters and
// its fold buffers. For a bucket: a rank posts `ready` when its own partial sums are final, waits
// until all are, adds up its slice in tree order in place, posts `done`. The total ends in rank 0's
// first held buffer, where all read it; rank 0 does not write there again before all have posted
// `consumed`.
#include <string>

#include "core/check.h"
#include "core/error.h"
#include "trainer/comm/bucket_exchange.h"
#include "trainer/comm/exchange_slices.h"
#include "trainer/comm/peer_memory.h"
#include "trainer/comm/shared_counter.h"

namespace nf::train {
namespace {

struct Counters {
  SharedCounter ready, done, consumed;
};
constexpr size_t kHead = 4096;  // counters; buffers begin at a page
static_assert(sizeof(Counters) <= kHead);

size_t buffer_stride(size_t elements) { return (elements + 1023) / 1024 * 1024; }

class PeerExchange final : public BucketExchange {
 public:
  PeerExchange(const ExchangeParts& parts, std::unique_ptr<PeerMemory> memory)
      : parts_(parts), memory_(std::move(memory)), stride_(buffer_stride(parts.elements)) {
    std::vector<TreeNode> nodes;
    for (const FoldPlan& plan : parts_.plans)
      nodes.insert(nodes.end(), plan.nodes.begin(), plan.nodes.end());
    order_ = order_of_additions(nodes, parts_.leaves);
  }

  float* buffer(size_t index) override { return buffer_of(parts_.comm.rank(), index); }
  void begin_step() override;
  bool exchange(size_t begin, size_t end) override;
  const float* finish() override;
  void release() override;

 private:
  Counters& counters(int rank) const { return *reinterpret_cast<Counters*>(memory_->of(rank)); }
  float* buffer_of(int rank, size_t index) const {
    return reinterpret_cast<float*>(memory_->of(rank) + kHead) + index * stride_;
  }
  void wait_for_all(SharedCounter Counters::*counter, uint32_t target, const char* what) const;

  const ExchangeParts parts_;
  const std::unique_ptr<PeerMemory> memory_;
  const size_t stride_;
  std::vector<Addition> order_;  // of all ranks' partial sums, numbered in rank order
  uint32_t bucket_ = 0, step_ = 0;
  bool reading_ = false;
};

void PeerExchange::wait_for_all(SharedCounter Counters::*counter, uint32_t target,
                                const char* what) const {
  const Deadline deadline(parts_.comm.timeout_seconds());
  for (int r = 0; r < parts_.comm.size(); ++r) {
    if (r == parts_.comm.rank()) continue;
    if ((counters(r).*counter).wait(target, deadline, [&] { parts_.comm.check_group(); })) continue;
    throw Error(ExitCode::kRank, "rank " + std::to_string(parts_.comm.rank()),
                std::string("gradient exchange: rank ") + std::to_string(r) + " did not " + what +
                    " within " + std::to_string(parts_.comm.timeout_seconds()) + " s",
                "look at the named rank's log, then run the same command again");
  }
}

void PeerExchange::begin_step() {
  release();
  if (parts_.comm.rank() == 0) wait_for_all(&Counters::consumed, step_, "read the last sum");
}

bool PeerExchange::exchange(size_t begin, size_t end) {
  ++bucket_;
  Counters& own = counters(parts_.comm.rank());
  own.ready.post(bucket_);
  wait_for_all(&Counters::ready, bucket_, "bring its gradient");
  const auto [first, last] = slice_range(end - begin, parts_.comm.rank(), parts_.comm.size());
  bool finite = true;
  if (first < last) {
    std::vector<float*> operands;
    for (int r = 0; r < parts_.comm.size(); ++r)
      for (const size_t h : parts_.plans[static_cast<size_t>(r)].held)
        operands.push_back(buffer_of(r, h) + begin + first);
    finite = parts_.ops.add(operands, order_, last - first);
  }
  own.done.post(bucket_);
  return finite;
}

const float* PeerExchange::finish() {
  wait_for_all(&Counters::done, bucket_, "finish its slice");
  ++step_;
  reading_ = true;
  return buffer_of(0, parts_.plans[0].held.front());
}

void PeerExchange::release() {
  if (!reading_) return;
  reading_ = false;
  counters(parts_.comm.rank()).consumed.post(step_);
}

}  // namespace

std::unique_ptr<BucketExchange> make_peer_exchange(const ExchangeParts& parts) {
  const FoldPlan& own = parts.plans[static_cast<size_t>(parts.comm.rank())];
  auto memory =
      parts.comm.share(kHead + own.buffers * buffer_stride(parts.elements) * sizeof(float));
  if (!memory) return nullptr;
  return std::make_unique<PeerExchange>(parts, std::move(memory));
}

}  // namespace nf::train

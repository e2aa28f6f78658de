// Exchanges by messages; see bucket_exchange.h.
#include <cstring>

#include "core/check.h"
#include "trainer/comm/bucket_exchange.h"
#include "trainer/comm/exchange_slices.h"

namespace nf::train {
namespace {

const std::byte* bytes_of(const float* p) { return reinterpret_cast<const std::byte*>(p); }
std::byte* bytes_of(float* p) { return reinterpret_cast<std::byte*>(p); }

// Memory that grows to the largest size asked for.
class Staging {
 public:
  float* grown(BufferOps& ops, size_t wanted) {
    if (capacity_ < wanted) {
      memory_ = ops.allocate(wanted);
      capacity_ = wanted;
    }
    return memory_.get();
  }

 private:
  std::shared_ptr<float[]> memory_;
  size_t capacity_ = 0;
};

class OwnBuffers : public BucketExchange {
 public:
  explicit OwnBuffers(const ExchangeParts& parts)
      : parts_(parts), plan_(parts_.plans[static_cast<size_t>(parts_.comm.rank())]) {
    for (size_t i = 0; i < plan_.buffers; ++i)
      buffers_.push_back(parts_.ops.allocate(parts_.elements));
  }
  float* buffer(size_t index) override { return buffers_[index].get(); }
  const float* finish() override { return total(); }

 protected:
  float* total() { return buffer(plan_.held.front()); }
  const ExchangeParts parts_;
  const FoldPlan& plan_;

 private:
  std::vector<std::shared_ptr<float[]>> buffers_;
};

class MessageExchange final : public OwnBuffers {
 public:
  explicit MessageExchange(const ExchangeParts& parts) : OwnBuffers(parts) {
    std::vector<TreeNode> nodes;
    for (const FoldPlan& plan : parts_.plans)
      nodes.insert(nodes.end(), plan.nodes.begin(), plan.nodes.end());
    order_ = order_of_additions(nodes, parts_.leaves);
  }
  bool exchange(size_t begin, size_t end) override;

 private:
  std::vector<Addition> order_;  // of all ranks' partial sums, numbered in rank order
  Staging packed_, received_;
};

bool MessageExchange::exchange(size_t begin, size_t end) {
  const int world = parts_.comm.size();
  if (world == 1) return false;  // the one held buffer is the total
  const size_t n = end - begin;
  const auto slice_length = [&](int rank) {
    const auto [a, b] = slice_range(n, rank, world);
    return b - a;
  };
  const size_t own = slice_length(parts_.comm.rank()), held = plan_.held.size();
  std::vector<size_t> send(static_cast<size_t>(world)), receive(send), gather(send);
  size_t partials = 0;
  for (int r = 0; r < world; ++r) {
    const auto i = static_cast<size_t>(r);
    const size_t subtrees = parts_.plans[i].held.size();
    gather[i] = slice_length(r) * sizeof(float);
    send[i] = gather[i] * held;
    receive[i] = own * sizeof(float) * subtrees;
    partials += subtrees;
  }
  float* const result = total() + begin;
  const float* outgoing = result;  // a single partial sum lies ready, slice after slice
  if (held > 1) {
    float* to = packed_.grown(parts_.ops, n * held);
    outgoing = to;
    for (int r = 0; r < world; ++r)
      for (const size_t h : plan_.held) {
        const size_t from = begin + slice_range(n, r, world).first;
        parts_.ops.copy(to, buffer(h) + from, slice_length(r));
        to += slice_length(r);
      }
  }
  float* const incoming = received_.grown(parts_.ops, own * partials);
  parts_.comm.all_to_all(bytes_of(outgoing), send, bytes_of(incoming), receive);
  std::vector<float*> operands(partials);
  for (size_t i = 0; i < partials; ++i) operands[i] = incoming + i * own;
  const bool finite = parts_.ops.add(operands, order_, own);
  parts_.comm.all_gather(bytes_of(incoming), bytes_of(result), gather);
  return finite;
}

class LibraryExchange final : public OwnBuffers {
 public:
  using OwnBuffers::OwnBuffers;
  bool exchange(size_t begin, size_t end) override {
    std::vector<float*> operands;
    std::vector<Addition> left_to_right;
    operands.reserve(plan_.held.size());
    for (const size_t h : plan_.held) operands.push_back(buffer(h) + begin);
    for (size_t i = 1; i < plan_.held.size(); ++i) left_to_right.push_back({0, i});
    parts_.ops.add(operands, left_to_right, end - begin);
    if (parts_.comm.size() > 1) parts_.comm.all_reduce_sum_fast({operands[0], end - begin});
    return false;
  }
};

}  // namespace

std::unique_ptr<BucketExchange> make_message_exchange(const ExchangeParts& parts) {
  return std::make_unique<MessageExchange>(parts);
}

std::unique_ptr<BucketExchange> make_library_exchange(const ExchangeParts& parts) {
  return std::make_unique<LibraryExchange>(parts);
}

}  // namespace nf::train

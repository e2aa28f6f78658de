// See grad_reducer.h.
#include "trainer/comm/grad_reducer.h"

#include <algorithm>
#include <optional>

#include "core/check.h"
#include "core/error.h"
#include "trainer/comm/sum_tree.h"

namespace nf::train {
namespace {

constexpr size_t kSliceAlignment = 16;  // floats: a cache line

// Slice `rank` of n elements: every slice starts at a multiple of kSliceAlignment; the last ones
// may be short or empty.
std::pair<size_t, size_t> slice_range(size_t n, int rank, int world) {
  const size_t w = static_cast<size_t>(world), r = static_cast<size_t>(rank);
  const size_t per_rank = (n + w - 1) / w;
  const size_t step = (per_rank + kSliceAlignment - 1) / kSliceAlignment * kSliceAlignment;
  return {std::min(n, r * step), std::min(n, (r + 1) * step)};
}

const std::byte* bytes_of(const float* p) { return reinterpret_cast<const std::byte*>(p); }
std::byte* bytes_of(float* p) { return reinterpret_cast<std::byte*>(p); }

}  // namespace

struct GradReducer::Impl {
  Impl(Communicator& c, uint64_t v, size_t n, Reduction r, BufferOps* o, size_t bucket_length)
      : comm(c),
        micro_batches(v),
        elements(n),
        bucket(bucket_length),
        reduction(r),
        ops(o ? *o : host_ops),
        fold(v) {
    NF_CHECK(bucket > 0);
    if (static_cast<uint64_t>(comm.size()) > v)
      throw Error(ExitCode::kUsage, "batch.micro_batches",
                  std::to_string(comm.size()) + " ranks share " + std::to_string(v) +
                      " micro-batches: some would have none",
                  "start at most " + std::to_string(v) + " ranks, or raise batch.micro_batches");
    std::vector<TreeNode> nodes;
    for (int rank = 0; rank < comm.size(); ++rank) {
      const auto [begin, end] = micro_batch_range(v, rank, comm.size());
      const auto own = maximal_subtrees(begin, end, v);
      subtrees.push_back(own.size());
      nodes.insert(nodes.end(), own.begin(), own.end());
    }
    order = order_of_additions(nodes, v);
    std::tie(first, last) = micro_batch_range(v, comm.rank(), comm.size());
    next = first;
  }

  size_t acquire();
  void add_current();
  float* grown(std::shared_ptr<float[]>& memory, size_t& capacity, size_t wanted);
  void reduce_bucket(size_t begin, size_t end);
  void reduce_fast();

  Communicator& comm;
  const uint64_t micro_batches;
  const size_t elements, bucket;
  const Reduction reduction;
  HostBufferOps host_ops;
  BufferOps& ops;

  std::vector<size_t> subtrees;  // per rank: how many partial sums it brings
  std::vector<Addition> order;   // of all ranks' partial sums, numbered in rank order
  uint64_t first = 0, last = 0;  // this rank's micro-batches
  uint64_t next = 0;             // the one that add() expects

  TreeFold fold;  // operands are indices into buffers
  std::vector<std::shared_ptr<float[]>> buffers;
  std::vector<size_t> unused;
  std::optional<size_t> current;
  bool finished = false;
  std::shared_ptr<float[]> packed, received;
  size_t packed_capacity = 0, received_capacity = 0;
};

size_t GradReducer::Impl::acquire() {
  if (unused.empty()) {
    buffers.push_back(ops.allocate(elements));
    return buffers.size() - 1;
  }
  const size_t index = unused.back();
  unused.pop_back();
  return index;
}

void GradReducer::Impl::add_current() {
  fold.push({0, next}, *current, [&](size_t into, size_t from) {
    float* const operands[] = {buffers[into].get(), buffers[from].get()};
    const Addition addition[] = {{0, 1}};
    ops.add(operands, addition, elements);
    unused.push_back(from);
  });
  current.reset();
  ++next;
}

float* GradReducer::Impl::grown(std::shared_ptr<float[]>& memory, size_t& capacity, size_t wanted) {
  if (capacity < wanted) {
    memory = ops.allocate(wanted);
    capacity = wanted;
  }
  return memory.get();
}

// Sums elements [begin, end) over all ranks into the first held buffer. Each rank owns one slice:
// it gets that slice of every partial sum, works off the tree and gives the result to all.
void GradReducer::Impl::reduce_bucket(size_t begin, size_t end) {
  const int world = comm.size();
  const size_t n = end - begin;
  const auto slice_length = [&](int rank) {
    const auto [a, b] = slice_range(n, rank, world);
    return b - a;
  };
  const size_t own = slice_length(comm.rank()), held = fold.held().size();
  std::vector<size_t> send(world), receive(world), gather(world);
  size_t partials = 0;
  for (int r = 0; r < world; ++r) {
    gather[r] = slice_length(r) * sizeof(float);
    send[r] = gather[r] * held;
    receive[r] = own * sizeof(float) * subtrees[r];
    partials += subtrees[r];
  }
  float* const result = buffers[fold.held().front().operand].get() + begin;
  const float* outgoing = result;  // a single partial sum lies ready, slice after slice
  if (held > 1) {
    float* to = grown(packed, packed_capacity, n * held);
    outgoing = to;
    for (int r = 0; r < world; ++r)
      for (const auto& h : fold.held()) {
        const size_t from = begin + slice_range(n, r, world).first;
        ops.copy(to, buffers[h.operand].get() + from, slice_length(r));
        to += slice_length(r);
      }
  }
  float* const incoming = grown(received, received_capacity, own * partials);
  comm.all_to_all(bytes_of(outgoing), send, bytes_of(incoming), receive);
  std::vector<float*> operands(partials);
  for (size_t i = 0; i < partials; ++i) operands[i] = incoming + i * own;
  ops.add(operands, order, own);
  comm.all_gather(bytes_of(incoming), bytes_of(result), gather);
}

void GradReducer::Impl::reduce_fast() {
  const auto& held = fold.held();
  std::vector<float*> operands;
  std::vector<Addition> left_to_right;
  operands.reserve(held.size());
  for (const auto& h : held) operands.push_back(buffers[h.operand].get());
  for (size_t i = 1; i < held.size(); ++i) left_to_right.push_back({0, i});
  ops.add(operands, left_to_right, elements);
  comm.all_reduce_sum_fast({operands[0], elements});
}

GradReducer::GradReducer(Communicator& comm, uint64_t micro_batches, size_t elements,
                         Reduction reduction, BufferOps* ops, size_t bucket_elements)
    : impl_(
          std::make_unique<Impl>(comm, micro_batches, elements, reduction, ops, bucket_elements)) {}

GradReducer::~GradReducer() = default;

std::span<float> GradReducer::buffer() {
  Impl& s = *impl_;
  if (s.finished) {  // a new step: the last result is no longer needed
    for (const auto& h : s.fold.held()) s.unused.push_back(h.operand);
    s.fold.clear();
    s.finished = false;
  }
  if (!s.current) s.current = s.acquire();
  return {s.buffers[*s.current].get(), s.elements};
}

void GradReducer::add(uint64_t micro_batch) {
  Impl& s = *impl_;
  NF_CHECK(s.current.has_value(), "add() without buffer()");
  NF_CHECK(micro_batch == s.next && s.next < s.last, "micro-batches out of order");
  s.add_current();
}

std::span<const float> GradReducer::finish() {
  Impl& s = *impl_;
  NF_CHECK(s.next == s.last && !s.finished, "finish() before the rank's last add()");
  NF_CHECK(!s.current.has_value(), "finish() with a buffer that was not added");
  if (s.comm.size() > 1) {
    if (s.reduction == Reduction::kFast) {
      s.reduce_fast();
    } else {
      for (size_t begin = 0; begin < s.elements; begin += s.bucket)
        s.reduce_bucket(begin, std::min(s.elements, begin + s.bucket));
    }
  }
  s.finished = true;
  s.next = s.first;
  return {s.buffers[s.fold.held().front().operand].get(), s.elements};
}

size_t GradReducer::buffers() const { return impl_->buffers.size(); }

double GradReducer::tree_sum(std::span<const double> leaves) { return train::tree_sum(leaves); }

Reduction parse_reduction(std::string_view text) {
  if (text == "exact") return Reduction::kExact;
  if (text == "fast") return Reduction::kFast;
  throw Error(ExitCode::kUsage, "comm.reduction",
              "must be one of \"exact\" \"fast\", not \"" + std::string(text) + "\"");
}

std::pair<uint64_t, uint64_t> micro_batch_range(uint64_t micro_batches, int rank, int world) {
  NF_CHECK(world >= 1 && rank >= 0 && rank < world);
  const uint64_t w = static_cast<uint64_t>(world), r = static_cast<uint64_t>(rank);
  return {r * micro_batches / w, (r + 1) * micro_batches / w};
}

std::vector<double> gather_leaves(Communicator& comm, uint64_t micro_batches,
                                  std::span<const double> own) {
  std::vector<size_t> bytes;
  for (int r = 0; r < comm.size(); ++r) {
    const auto [begin, end] = micro_batch_range(micro_batches, r, comm.size());
    bytes.push_back((end - begin) * sizeof(double));
  }
  NF_CHECK(own.size_bytes() == bytes[static_cast<size_t>(comm.rank())]);
  std::vector<double> all(micro_batches);
  comm.all_gather(reinterpret_cast<const std::byte*>(own.data()),
                  reinterpret_cast<std::byte*>(all.data()), bytes);
  return all;
}

}  // namespace nf::train

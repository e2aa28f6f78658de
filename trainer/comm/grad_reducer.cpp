// See grad_reducer.h.
#include "trainer/comm/grad_reducer.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <ctime>
#include <exception>
#include <mutex>
#include <thread>

#include "core/check.h"
#include "core/error.h"
#include "core/timeline.h"
#include "trainer/comm/bucket_exchange.h"

namespace nf::train {
namespace {

// 256 KiB to 16 MiB: small nets get a few buckets to overlap, large ones bounded staging memory.
size_t bucket_length(size_t wanted, size_t elements) {
  if (wanted > 0) return wanted;
  return std::clamp(elements / 16, size_t{1} << 16, size_t{1} << 22);
}

std::vector<FoldPlan> fold_plans(uint64_t v, int world, Reduction reduction) {
  std::vector<FoldPlan> plans;
  for (int r = 0; r < world; ++r) {
    const auto [begin, end] = micro_batch_range(v, r, world);
    plans.push_back(reduction == Reduction::kFixed64 ? make_unfolded_plan(begin, end)
                                                     : make_fold_plan(begin, end, v));
  }
  return plans;
}

std::unique_ptr<BucketExchange> make_exchange(const ExchangeParts& parts,
                                              const ReducerOptions& options, bool& shared) {
  shared = false;
  if (options.reduction == Reduction::kFixed64) return make_fixed64_exchange(parts);
  if (options.reduction == Reduction::kFast) return make_library_exchange(parts);
  if (parts.comm.size() > 1 && options.shared_memory && !options.ops)
    if (auto peer = make_peer_exchange(parts)) {
      shared = true;
      return peer;
    }
  return make_message_exchange(parts);
}

double thread_cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

}  // namespace

struct GradReducer::Impl {
  Impl(Communicator& c, uint64_t v, size_t n, const ReducerOptions& options)
      : comm(c),
        leaves(v),
        elements(n),
        bucket(bucket_length(options.bucket_elements, n)),
        ops(options.ops ? *options.ops : host_ops) {
    if (static_cast<uint64_t>(comm.size()) > v)
      throw Error(ExitCode::kUsage, "batch.micro_batches",
                  std::to_string(comm.size()) + " ranks share " + std::to_string(v) +
                      " micro-batches: some would have none",
                  "start at most " + std::to_string(v) + " ranks, or raise batch.micro_batches");
    std::tie(first, last) = micro_batch_range(v, comm.rank(), comm.size());
    next = first;
    ExchangeParts parts{comm, ops, fold_plans(v, comm.size(), options.reduction), v, n};
    plan = parts.plans[static_cast<size_t>(comm.rank())];
    exchange = make_exchange(parts, options, shared);
    // On a device the gradient is still being computed when its kernels have been queued: there the
    // exchange runs in finish().
    if (comm.size() > 1 && !options.ops)
      worker = std::jthread([this](const std::stop_token& s) { work(s); });
  }
  ~Impl() {
    bool busy = false;
    {
      const std::lock_guard lock(mutex);
      busy = exchanging;
    }
    if (busy) comm.interrupt("a step ended before its exchange");  // or the worker waits for peers
    worker.request_stop();
    changed.notify_all();
  }

  bool is_last() const { return next + 1 == last; }
  bool fold(size_t leaf, size_t begin, size_t end);
  void exchange_bucket(size_t begin, size_t end);
  void exchange_all();
  void work(const std::stop_token& stop);
  void wait_for_worker();

  Communicator& comm;
  const uint64_t leaves;  // V
  const size_t elements, bucket;
  HostBufferOps host_ops;
  BufferOps& ops;
  FoldPlan plan;
  std::unique_ptr<BucketExchange> exchange;
  bool shared = false;
  uint64_t first = 0, last = 0;  // this rank's micro-batches
  uint64_t next = 0;             // the one that add() expects
  bool open = false, filled = false, finished = false;
  bool leaf_finite = false;  // the last gradient is known to be
  bool sum_finite = false;   // and so is what this step's exchanges left
  std::shared_ptr<Timeline> timeline;

  std::mutex mutex;
  std::condition_variable changed;
  size_t frontier = 0;         // elements from here on are final, in the last micro-batch
  bool exchanging = false;     // the worker has a step to do
  std::exception_ptr failure;  // of the worker
  double worker_cpu = 0;
  std::jthread worker;  // last: ends before what it uses
};

// The additions that are due once own micro-batch `leaf` is there, on a range of elements. Returns
// whether what they left is known to be finite.
bool GradReducer::Impl::fold(size_t leaf, size_t begin, size_t end) {
  const auto& additions = plan.additions[leaf];
  if (additions.empty() || begin == end) return false;
  std::vector<float*> operands;
  for (size_t i = 0; i < plan.buffers; ++i) operands.push_back(exchange->buffer(i) + begin);
  return ops.add(operands, additions, end - begin);
}

void GradReducer::Impl::exchange_bucket(size_t begin, size_t end) {
  const Timeline::Span span(timeline.get(), "exchange");
  const bool folded = fold(plan.leaf_buffer.size() - 1, begin, end);
  const bool exchanged = exchange->exchange(begin, end);
  sum_finite = sum_finite && (comm.size() == 1 ? folded : exchanged);
}

// From the end to the front, as a backward pass fills them.
void GradReducer::Impl::exchange_all() {
  for (size_t end = elements; end > 0;) {
    const size_t begin = (end - 1) / bucket * bucket;
    exchange_bucket(begin, end);
    end = begin;
  }
}

void GradReducer::Impl::work(const std::stop_token& stop) {
  for (;;) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return exchanging || stop.stop_requested(); });
    if (stop.stop_requested()) return;
    try {
      for (size_t end = elements; end > 0;) {
        const size_t begin = (end - 1) / bucket * bucket;
        changed.wait(lock, [&] { return frontier <= begin || stop.stop_requested(); });
        if (stop.stop_requested()) return;
        lock.unlock();
        exchange_bucket(begin, end);
        lock.lock();
        end = begin;
      }
    } catch (...) {
      if (!lock.owns_lock()) lock.lock();
      failure = std::current_exception();
    }
    exchanging = false;
    worker_cpu = thread_cpu_seconds();
    changed.notify_all();
  }
}

void GradReducer::Impl::wait_for_worker() {
  const Timeline::Span span(timeline.get(), "wait for exchange");
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return !exchanging; });
  if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
}

GradReducer::GradReducer(Communicator& comm, uint64_t micro_batches, size_t elements,
                         const ReducerOptions& options)
    : impl_(std::make_unique<Impl>(comm, micro_batches, elements, options)) {}

GradReducer::~GradReducer() = default;

std::span<float> GradReducer::buffer() {
  Impl& s = *impl_;
  if (!s.open) {
    if (s.next == s.first) s.exchange->begin_step();
    s.finished = false;
    s.sum_finite = true;
    s.open = true;
    if (s.is_last() && s.worker.joinable()) {
      const std::lock_guard lock(s.mutex);
      s.frontier = s.elements;
      s.exchanging = true;
      s.changed.notify_all();
    }
  }
  return {s.exchange->buffer(s.plan.leaf_buffer[s.next - s.first]), s.elements};
}

void GradReducer::ready_from(size_t offset) {
  Impl& s = *impl_;
  if (!s.open || !s.is_last() || !s.worker.joinable()) return;
  const std::lock_guard lock(s.mutex);
  NF_CHECK(offset <= s.frontier, "a gradient became ready twice");
  // The worker sleeps until a whole bucket is there.
  const bool crossed = offset == 0 || (offset - 1) / s.bucket < (s.frontier - 1) / s.bucket;
  s.frontier = offset;
  if (crossed) s.changed.notify_all();
}

void GradReducer::add(uint64_t micro_batch, bool finite) {
  Impl& s = *impl_;
  NF_CHECK(s.open, "add() without buffer()");
  NF_CHECK(micro_batch == s.next && s.next < s.last, "micro-batches out of order");
  if (s.is_last()) {
    if (s.elements > 0) ready_from(0);
    s.filled = true;
  } else {
    const Timeline::Span span(s.timeline.get(), "fold");
    s.fold(s.next - s.first, 0, s.elements);
  }
  s.leaf_finite = finite;
  s.open = false;
  ++s.next;
}

std::span<const float> GradReducer::finish() {
  Impl& s = *impl_;
  NF_CHECK(s.next == s.last && s.filled && !s.finished, "finish() before the rank's last add()");
  if (s.worker.joinable()) {
    s.wait_for_worker();
  } else {
    s.exchange_all();
  }
  s.filled = false;
  s.finished = true;
  s.next = s.first;
  return {s.exchange->finish(), s.elements};
}

bool GradReducer::finite() const {
  NF_CHECK(impl_->finished, "finite() before finish()");
  return impl_->leaves == 1 ? impl_->leaf_finite : impl_->sum_finite;
}

void GradReducer::release() { impl_->exchange->release(); }

size_t GradReducer::buffers() const { return impl_->plan.buffers; }
bool GradReducer::in_shared_memory() const { return impl_->shared; }

double GradReducer::exchange_cpu_seconds() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->worker_cpu;
}

void GradReducer::record(std::shared_ptr<Timeline> timeline) {
  // Between steps only: the worker reads it inside one.
  NF_CHECK(!impl_->open && !impl_->filled);
  impl_->timeline = std::move(timeline);
}

double GradReducer::tree_sum(std::span<const double> leaves) { return train::tree_sum(leaves); }

Reduction parse_reduction(std::string_view text) {
  if (text == "exact") return Reduction::kExact;
  if (text == "fast") return Reduction::kFast;
  if (text == "fixed64") return Reduction::kFixed64;
  throw Error(ExitCode::kUsage, "comm.reduction",
              "must be one of \"exact\" \"fast\" \"fixed64\", not \"" + std::string(text) + "\"");
}

std::pair<uint64_t, uint64_t> micro_batch_range(uint64_t micro_batches, int rank, int world) {
  NF_CHECK(world >= 1 && rank >= 0 && rank < world);
  const uint64_t w = static_cast<uint64_t>(world), r = static_cast<uint64_t>(rank);
  return {r * micro_batches / w, (r + 1) * micro_batches / w};
}

}  // namespace nf::train

// See threads.h. One call = arrive (every rank posts what it brings), work (each rank reads the
// others' memory), leave (no rank returns, and so frees its memory, before the last has read). Only
// arriving can time out: once all ranks are inside a call nothing but copying is left to wait for.
#include "trainer/comm/threads.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>

#include "core/check.h"
#include "core/error.h"
#include "trainer/comm/deadline.h"

namespace nf::train {
namespace {

// What a rank brings to a call; read by the others between arrive and leave.
struct Post {
  const char* call = "";
  const std::byte* data = nullptr;
  std::span<const size_t> bytes = {};
  size_t count = 0;  // length, or the root of a broadcast; must agree where the call says so
};

size_t prefix(std::span<const size_t> bytes, int n) {
  return std::accumulate(bytes.begin(), bytes.begin() + n, size_t{0});
}

void copy_bytes(std::byte* to, const std::byte* from, size_t n) {
  if (n > 0) std::memcpy(to, from, n);
}

}  // namespace

struct ThreadsGroup::Shared {
  Shared(int ranks, double timeout_seconds)
      : size(ranks), timeout(timeout_seconds), posts(ranks), arrived(ranks, 0) {}

  const int size;
  const double timeout;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Post> posts;
  std::vector<char> arrived;
  int arrived_count = 0;
  int inside = 0;           // ranks between arrive and leave
  uint64_t generation = 0;  // calls that all ranks have entered
  uint64_t left = 0;        // calls that all ranks have left
  std::string broken;       // why no further call can succeed

  [[noreturn]] void fail(int rank, const char* call) const {
    throw Error(ExitCode::kRank, "rank " + std::to_string(rank), std::string(call) + ": " + broken);
  }

  void break_group(const std::string& why) {  // mutex held
    if (broken.empty()) broken = why;
    changed.notify_all();
  }

  void arrive(int rank, const Post& post);
  void leave();
};

void ThreadsGroup::Shared::arrive(int rank, const Post& post) {
  std::unique_lock lock(mutex);
  if (!broken.empty()) fail(rank, post.call);
  NF_CHECK(!arrived[rank], "two threads use one rank's communicator");
  posts[rank] = post;
  arrived[rank] = 1;
  const uint64_t mine = generation;
  if (++arrived_count == size) {
    for (int r = 0; r < size; ++r)
      if (std::strcmp(posts[r].call, post.call) != 0 || posts[r].count != post.count) {
        const auto name = [&](int i) {
          return std::string(posts[i].call) + "(" + std::to_string(posts[i].count) + ")";
        };
        break_group("ranks disagree: rank " + std::to_string(r) + " calls " + name(r) + ", rank " +
                    std::to_string(rank) + " calls " + name(rank));
        fail(rank, post.call);
      }
    std::fill(arrived.begin(), arrived.end(), 0);
    arrived_count = 0;
    inside = size;
    ++generation;
    changed.notify_all();
    return;
  }
  const Deadline deadline(timeout);
  const auto done = [&] { return generation != mine || !broken.empty(); };
  if (!changed.wait_until(lock, deadline.end(), done)) {
    std::string missing;
    for (int r = 0; r < size; ++r)
      if (!arrived[r]) missing += (missing.empty() ? "rank " : ", ") + std::to_string(r);
    break_group("no answer from " + missing + " within " + std::to_string(timeout) + " s");
  }
  if (generation == mine) fail(rank, post.call);
}

void ThreadsGroup::Shared::leave() {
  std::unique_lock lock(mutex);
  const uint64_t mine = left;
  if (--inside == 0) {
    ++left;
    changed.notify_all();
    return;
  }
  changed.wait(lock, [&] { return left != mine; });
}

class ThreadsGroup::Member final : public Communicator {
 public:
  Member(Shared& shared, int rank) : shared_(shared), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return shared_.size; }
  void barrier() override {
    call({"barrier"}, [] {});
  }

  void broadcast(std::span<std::byte> data, int root) override {
    NF_CHECK(root >= 0 && root < size());
    const size_t bytes[] = {data.size()};
    call({"broadcast", data.data(), bytes, static_cast<size_t>(root)}, [&] {
      NF_CHECK(post(root).bytes[0] == data.size(), "broadcast: ranks give different lengths");
      if (rank_ != root) copy_bytes(data.data(), post(root).data, data.size());
    });
  }

  void all_reduce_max(std::span<int64_t> data) override {
    reduce("all_reduce_max", data, [](int64_t a, int64_t b) { return std::max(a, b); });
  }
  void all_reduce_sum(std::span<int64_t> data) override {
    reduce("all_reduce_sum", data, [](int64_t a, int64_t b) {
      return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
    });
  }
  void all_reduce_sum_fast(std::span<float> data) override {
    reduce("all_reduce_sum_fast", data, [](float a, float b) { return a + b; });
  }

  void all_to_all(const std::byte* send, std::span<const size_t> send_bytes, std::byte* receive,
                  std::span<const size_t> receive_bytes) override {
    NF_CHECK(send_bytes.size() == ranks() && receive_bytes.size() == ranks());
    call({"all_to_all", send, send_bytes}, [&] {
      for (int r = 0; r < size(); ++r) {
        const size_t n = receive_bytes[r];
        NF_CHECK(post(r).bytes[rank_] == n, "all_to_all: sender and receiver give two lengths");
        copy_bytes(receive, post(r).data + prefix(post(r).bytes, rank_), n);
        receive += n;
      }
    });
  }

  void all_gather(const std::byte* send, std::byte* receive,
                  std::span<const size_t> bytes) override {
    NF_CHECK(bytes.size() == ranks());
    call({"all_gather", send, bytes}, [&] {
      for (int r = 0; r < size(); ++r) {
        NF_CHECK(post(r).bytes[r] == bytes[r], "all_gather: ranks give different lengths");
        if (receive != post(r).data) copy_bytes(receive, post(r).data, bytes[r]);
        receive += bytes[r];
      }
    });
  }

  std::unique_ptr<PeerMemory> share(size_t bytes) override;
  double timeout_seconds() const override { return shared_.timeout; }
  void check_group() override {
    const std::lock_guard lock(shared_.mutex);
    if (!shared_.broken.empty()) shared_.fail(rank_, "check");
  }
  void interrupt(const std::string& why) override {
    const std::lock_guard lock(shared_.mutex);
    shared_.break_group("rank " + std::to_string(rank_) + " gave up: " + why);
  }

  [[noreturn]] void abort(int exit_code) override {
    const std::lock_guard lock(shared_.mutex);
    shared_.break_group("rank " + std::to_string(rank_) + " called abort(" +
                        std::to_string(exit_code) + ")");
    shared_.fail(rank_, "abort");
  }

 private:
  size_t ranks() const { return static_cast<size_t>(shared_.size); }
  const Post& post(int rank) const { return shared_.posts[rank]; }

  template <class Work>
  void call(const Post& mine, Work work) {
    shared_.arrive(rank_, mine);
    std::exception_ptr error;
    try {
      work();
    } catch (...) {
      error = std::current_exception();  // leave first: the others still read this rank's memory
    }
    shared_.leave();
    if (error) std::rethrow_exception(error);
  }

  template <class T, class Combine>
  void reduce(const char* name, std::span<T> data, Combine combine) {
    std::vector<T> total(data.begin(), data.end());
    call({name, reinterpret_cast<const std::byte*>(data.data()), {}, data.size()}, [&] {
      const auto of = [&](int r) { return reinterpret_cast<const T*>(post(r).data); };
      std::copy_n(of(0), data.size(), total.begin());
      for (int r = 1; r < size(); ++r)
        for (size_t i = 0; i < data.size(); ++i) total[i] = combine(total[i], of(r)[i]);
    });
    std::copy(total.begin(), total.end(), data.begin());
  }

  Shared& shared_;
  const int rank_;
};

namespace {

struct AlignedBlock {
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  explicit AlignedBlock(size_t n) : lines((n + 63) / 64) {}
  std::vector<Line> lines;
};

// Every rank holds all blocks, so none is freed under another rank that still unwinds.
struct ThreadsMemory final : PeerMemory {
  std::vector<std::shared_ptr<AlignedBlock>> blocks;
  std::byte* of(int rank) const override {
    return blocks[static_cast<size_t>(rank)]->lines.data()->bytes;
  }
};

}  // namespace

std::unique_ptr<PeerMemory> ThreadsGroup::Member::share(size_t bytes) {
  const auto own = std::make_shared<AlignedBlock>(bytes);
  auto memory = std::make_unique<ThreadsMemory>();
  call({"share", reinterpret_cast<const std::byte*>(&own)}, [&] {
    for (int r = 0; r < size(); ++r)
      memory->blocks.push_back(
          *reinterpret_cast<const std::shared_ptr<AlignedBlock>*>(post(r).data));
  });
  return memory;
}

ThreadsGroup::ThreadsGroup(int ranks, double timeout_seconds)
    : shared_(std::make_unique<Shared>(ranks, timeout_seconds)) {
  NF_CHECK(ranks >= 1);
  for (int r = 0; r < ranks; ++r) members_.push_back(std::make_unique<Member>(*shared_, r));
}

ThreadsGroup::~ThreadsGroup() = default;

int ThreadsGroup::size() const { return shared_->size; }

Communicator& ThreadsGroup::communicator(int rank) {
  NF_CHECK(rank >= 0 && rank < size());
  return *members_[rank];
}

void ThreadsGroup::run(const std::function<void(Communicator&)>& body) {
  std::exception_ptr first;
  const auto run_rank = [&](int rank) {
    try {
      body(*members_[rank]);
    } catch (const std::exception& e) {
      const std::lock_guard lock(shared_->mutex);
      if (!first) first = std::current_exception();
      shared_->break_group("rank " + std::to_string(rank) + " failed: " + e.what());
    } catch (...) {
      const std::lock_guard lock(shared_->mutex);
      if (!first) first = std::current_exception();
      shared_->break_group("rank " + std::to_string(rank) + " failed");
    }
  };
  {
    std::vector<std::jthread> threads;
    threads.reserve(static_cast<size_t>(size()));
    for (int r = 0; r < size(); ++r) threads.emplace_back(run_rank, r);
  }
  if (first) std::rethrow_exception(first);
}

}  // namespace nf::train

// See mpi.h. Messages go directly between the ranks that have something for each other, and every
// collective of MPI's own is preceded by a handshake of that kind: so a wait that fails knows which
// peers did not come. Open MPI moves data only inside its calls, hence polling; and ranks that
// share a core must let each other run, hence the pause.
#include "trainer/comm/mpi.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <system_error>
#include <vector>

#include "core/check.h"
#include "core/error.h"
#include "trainer/comm/deadline.h"
#include "trainer/comm/memfd.h"

namespace nf::train {

struct MpiSession::State {
  std::atomic<double> timeout{0.0};
  std::atomic<bool> broken{false};  // some call failed: MPI must not be waited for again
  std::mutex mutex;
  std::string interruption;  // why this rank gave up; empty: it did not
};

namespace {

// Counts in MPI are ints; longer messages go in pieces of this many bytes (elements of 4 or 8 bytes
// divide it).
constexpr size_t kPiece = size_t{1} << 30;

// One tag a call: ranks that disagree about the call find no partner, and the wait that fails names
// them.
enum Tag : int { kHello = 1, kAllToAll, kAllGather };

std::string seconds_text(double seconds) {
  std::string text = std::to_string(seconds);
  text.erase(text.find('.') + 2);
  return text + " s";
}

}  // namespace

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(std::shared_ptr<MpiSession::State> state, MPI_Comm parent);
  ~MpiCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void barrier() override { hello("barrier"); }
  void broadcast(std::span<std::byte> data, int root) override;
  void all_reduce_max(std::span<int64_t> data) override;
  void all_reduce_sum(std::span<int64_t> data) override;
  void all_to_all(const std::byte* send, std::span<const size_t> send_bytes, std::byte* receive,
                  std::span<const size_t> receive_bytes) override;
  void all_gather(const std::byte* send, std::byte* receive,
                  std::span<const size_t> bytes) override;
  void all_reduce_sum_fast(std::span<float> data) override;
  std::unique_ptr<PeerMemory> share(size_t bytes) override;
  double timeout_seconds() const override { return state_->timeout; }
  void check_group() override;
  void interrupt(const std::string& why) override;
  [[noreturn]] void abort(int exit_code) override;

 private:
  // Messages under way, each with its peer (-1: all).
  struct Pending {
    std::vector<MPI_Request> requests;
    std::vector<int> peers;
    MPI_Request* add(int peer) {
      peers.push_back(peer);
      return &requests.emplace_back(MPI_REQUEST_NULL);
    }
  };

  [[noreturn]] void fail(const char* call, const std::string& what);
  void check(int code, const char* call);
  void start(const char* call);
  void send(Pending& pending, const char* call, Tag tag, int peer, const std::byte* data, size_t n);
  void receive(Pending& pending, const char* call, Tag tag, int peer, std::byte* data, size_t n);
  void wait(Pending& pending, const char* call);
  std::string unfinished_peers(Pending& pending);
  void hello(const char* call);
  int nth_peer(int n) const { return (rank_ + n) % size_; }  // spreads the load over the peers
  size_t ranks() const { return static_cast<size_t>(size_); }
  template <class Combine>
  void reduce(std::span<int64_t> data, Combine combine);

  std::shared_ptr<MpiSession::State> state_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  std::vector<std::string> hosts_;
};

MpiCommunicator::MpiCommunicator(std::shared_ptr<MpiSession::State> state, MPI_Comm parent)
    : state_(std::move(state)) {
  Pending pending;
  check(MPI_Comm_idup(parent, &comm_, pending.add(-1)), "start");
  wait(pending, "start");
  check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "start");
  check(MPI_Comm_rank(comm_, &rank_), "start");
  check(MPI_Comm_size(comm_, &size_), "start");
  using HostName = std::array<char, 64>;
  char name[MPI_MAX_PROCESSOR_NAME] = {};
  int length = 0;
  check(MPI_Get_processor_name(name, &length), "start");
  HostName own{};
  std::copy_n(name, std::min(static_cast<size_t>(length), own.size() - 1), own.data());
  std::vector<HostName> all(ranks());
  all_gather(reinterpret_cast<const std::byte*>(own.data()),
             reinterpret_cast<std::byte*>(all.data()),
             std::vector<size_t>(all.size(), sizeof(HostName)));
  for (const auto& host : all) hosts_.emplace_back(host.data());
}

MpiCommunicator::~MpiCommunicator() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!finalized && !state_->broken && std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
}

void MpiCommunicator::fail(const char* call, const std::string& what) {
  state_->broken = true;
  std::string where = "rank " + std::to_string(rank_);
  if (!hosts_.empty()) where += " on " + hosts_[static_cast<size_t>(rank_)];
  throw Error(ExitCode::kRank, where, std::string(call) + ": " + what,
              "look at the named rank's log and host, then run the same command again; a slow "
              "file system or a long evaluation may need a larger comm.timeout_seconds");
}

void MpiCommunicator::check(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail(call, text);
}

void MpiCommunicator::start(const char* call) {
  if (!state_->broken) return;
  const std::lock_guard lock(state_->mutex);
  fail(call, state_->interruption.empty() ? "an earlier call failed" : state_->interruption);
}

void MpiCommunicator::check_group() { start("check"); }

void MpiCommunicator::interrupt(const std::string& why) {
  const std::lock_guard lock(state_->mutex);
  state_->interruption = "this rank gave up: " + why;
  state_->broken = true;
}

void MpiCommunicator::send(Pending& pending, const char* call, Tag tag, int peer,
                           const std::byte* data, size_t n) {
  for (size_t at = 0; at < n; at += kPiece)
    check(MPI_Isend(data + at, static_cast<int>(std::min(kPiece, n - at)), MPI_BYTE, peer, tag,
                    comm_, pending.add(peer)),
          call);
}

void MpiCommunicator::receive(Pending& pending, const char* call, Tag tag, int peer,
                              std::byte* data, size_t n) {
  for (size_t at = 0; at < n; at += kPiece)
    check(MPI_Irecv(data + at, static_cast<int>(std::min(kPiece, n - at)), MPI_BYTE, peer, tag,
                    comm_, pending.add(peer)),
          call);
}

void MpiCommunicator::wait(Pending& pending, const char* call) {
  const Deadline deadline(state_->timeout);
  PollPause pause;
  for (;;) {
    int done = 0;
    check(MPI_Testall(static_cast<int>(pending.requests.size()), pending.requests.data(), &done,
                      MPI_STATUSES_IGNORE),
          call);
    if (done) return;
    start(call);  // interrupted?
    if (deadline.passed())
      fail(call, unfinished_peers(pending) + " within " + seconds_text(deadline.seconds()));
    pause();
  }
}

std::string MpiCommunicator::unfinished_peers(Pending& pending) {
  std::vector<int> peers;
  for (size_t i = 0; i < pending.requests.size(); ++i) {
    int done = 0;
    if (MPI_Test(&pending.requests[i], &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done) continue;
    if (pending.peers[i] >= 0) peers.push_back(pending.peers[i]);
  }
  std::sort(peers.begin(), peers.end());
  peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
  if (peers.empty()) return "not finished";
  std::string text = "no answer from ";
  for (size_t i = 0; i < peers.size(); ++i) {
    text += (i > 0 ? ", rank " : "rank ") + std::to_string(peers[i]);
    if (!hosts_.empty()) text += " on " + hosts_[static_cast<size_t>(peers[i])];
  }
  return text;
}

// Every rank tells every other that it is here.
void MpiCommunicator::hello(const char* call) {
  start(call);
  Pending pending;
  const std::byte own{};
  std::vector<std::byte> others(ranks());
  for (int n = 1; n < size_; ++n) {
    const int peer = nth_peer(n);
    receive(pending, call, kHello, peer, &others[static_cast<size_t>(peer)], 1);
    send(pending, call, kHello, peer, &own, 1);
  }
  wait(pending, call);
}

void MpiCommunicator::broadcast(std::span<std::byte> data, int root) {
  NF_CHECK(root >= 0 && root < size_);
  hello("broadcast");
  Pending pending;
  for (size_t at = 0; at < data.size(); at += kPiece)
    check(MPI_Ibcast(data.data() + at, static_cast<int>(std::min(kPiece, data.size() - at)),
                     MPI_BYTE, root, comm_, pending.add(-1)),
          "broadcast");
  wait(pending, "broadcast");
}

// Integers are few (counts, flags): gathering them names the missing ranks, which a reduction tree
// would not.
template <class Combine>
void MpiCommunicator::reduce(std::span<int64_t> data, Combine combine) {
  std::vector<int64_t> all(data.size() * ranks());
  const std::vector<size_t> bytes(ranks(), data.size_bytes());
  all_gather(reinterpret_cast<const std::byte*>(data.data()),
             reinterpret_cast<std::byte*>(all.data()), bytes);
  for (size_t i = 0; i < data.size(); ++i) {
    data[i] = all[i];
    for (size_t r = 1; r < ranks(); ++r) data[i] = combine(data[i], all[r * data.size() + i]);
  }
}

void MpiCommunicator::all_reduce_max(std::span<int64_t> data) {
  reduce(data, [](int64_t a, int64_t b) { return std::max(a, b); });
}

void MpiCommunicator::all_reduce_sum(std::span<int64_t> data) {
  reduce(data, [](int64_t a, int64_t b) {
    return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  });
}

void MpiCommunicator::all_to_all(const std::byte* send_data, std::span<const size_t> send_bytes,
                                 std::byte* receive_data, std::span<const size_t> receive_bytes) {
  NF_CHECK(send_bytes.size() == ranks() && receive_bytes.size() == ranks());
  start("all_to_all");
  std::vector<const std::byte*> outgoing(ranks());
  std::vector<std::byte*> incoming(ranks());
  for (size_t r = 0; r < ranks(); ++r) {
    outgoing[r] = send_data;
    incoming[r] = receive_data;
    send_data += send_bytes[r];
    receive_data += receive_bytes[r];
  }
  Pending pending;
  for (int n = 1; n < size_; ++n) {
    const auto from = static_cast<size_t>(nth_peer(size_ - n));
    receive(pending, "all_to_all", kAllToAll, static_cast<int>(from), incoming[from],
            receive_bytes[from]);
  }
  for (int n = 1; n < size_; ++n) {
    const auto to = static_cast<size_t>(nth_peer(n));
    send(pending, "all_to_all", kAllToAll, static_cast<int>(to), outgoing[to], send_bytes[to]);
  }
  const auto own = static_cast<size_t>(rank_);
  NF_CHECK(send_bytes[own] == receive_bytes[own], "a rank's message to itself has two lengths");
  if (send_bytes[own] > 0) std::memcpy(incoming[own], outgoing[own], send_bytes[own]);
  wait(pending, "all_to_all");
}

void MpiCommunicator::all_gather(const std::byte* send_data, std::byte* receive_data,
                                 std::span<const size_t> bytes) {
  NF_CHECK(bytes.size() == ranks());
  start("all_gather");
  std::vector<std::byte*> place(ranks());
  for (size_t r = 0; r < ranks(); ++r) {
    place[r] = receive_data;
    receive_data += bytes[r];
  }
  const auto own = static_cast<size_t>(rank_);
  Pending pending;
  for (int n = 1; n < size_; ++n) {
    const auto from = static_cast<size_t>(nth_peer(size_ - n));
    receive(pending, "all_gather", kAllGather, static_cast<int>(from), place[from], bytes[from]);
  }
  for (int n = 1; n < size_; ++n)
    send(pending, "all_gather", kAllGather, nth_peer(n), send_data, bytes[own]);
  if (bytes[own] > 0 && place[own] != send_data) std::memcpy(place[own], send_data, bytes[own]);
  wait(pending, "all_gather");
}

void MpiCommunicator::all_reduce_sum_fast(std::span<float> data) {
  hello("all_reduce_sum_fast");
  constexpr size_t kElements = kPiece / sizeof(float);
  Pending pending;
  for (size_t at = 0; at < data.size(); at += kElements)
    check(MPI_Iallreduce(MPI_IN_PLACE, data.data() + at,
                         static_cast<int>(std::min(kElements, data.size() - at)), MPI_FLOAT,
                         MPI_SUM, comm_, pending.add(-1)),
          "all_reduce_sum_fast");
  wait(pending, "all_reduce_sum_fast");
}

namespace {

struct MpiPeerMemory final : PeerMemory {
  std::vector<std::unique_ptr<MemfdBlock>> blocks;
  std::byte* of(int rank) const override { return blocks[static_cast<size_t>(rank)]->data(); }
};

}  // namespace

std::unique_ptr<PeerMemory> MpiCommunicator::share(size_t bytes) {
  auto memory = std::make_unique<MpiPeerMemory>();
  memory->blocks.resize(ranks());
  const auto own = static_cast<size_t>(rank_);
  const auto attempt = [](const auto& work) -> int64_t {
    try {
      work();
      return 0;
    } catch (const std::system_error&) {
      return 1;
    }
  };
  int64_t failed = std::all_of(hosts_.begin(), hosts_.end(),
                               [&](const std::string& h) { return h == hosts_.front(); })
                       ? attempt([&] { memory->blocks[own] = std::make_unique<MemfdBlock>(bytes); })
                       : 1;
  std::vector<MemfdAddress> all(ranks());
  const MemfdAddress address = failed ? MemfdAddress{} : memory->blocks[own]->address();
  all_gather(reinterpret_cast<const std::byte*>(&address), reinterpret_cast<std::byte*>(all.data()),
             std::vector<size_t>(ranks(), sizeof address));
  for (size_t r = 0; r < ranks() && failed == 0; ++r)
    if (r != own)
      failed = all[r].pid < 0
                   ? 1
                   : attempt([&] { memory->blocks[r] = std::make_unique<MemfdBlock>(all[r]); });
  all_reduce_max({&failed, 1});
  if (failed) return nullptr;
  return memory;
}

void MpiCommunicator::abort(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  _exit(exit_code);
}

MpiSession::MpiSession(int* argc, char*** argv, double timeout_seconds)
    : state_(std::make_shared<State>()) {
  state_->timeout = timeout_seconds;
  int provided = MPI_THREAD_SINGLE;
  const int code = MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided);
  if (code != MPI_SUCCESS || provided < MPI_THREAD_MULTIPLE)
    throw Error(ExitCode::kRank, "MPI", "cannot start with MPI_THREAD_MULTIPLE",
                "use an MPI built with thread support (Open MPI is by default)");
  world_ = std::make_unique<MpiCommunicator>(state_, MPI_COMM_WORLD);
}

MpiSession::~MpiSession() {
  bool all_here = !state_->broken && std::uncaught_exceptions() == 0;
  if (all_here) {
    try {
      world_->barrier();
    } catch (const Error&) {
      all_here = false;  // a destructor cannot report; not finalizing makes the launcher do so
    }
  }
  world_.reset();
  if (all_here) MPI_Finalize();
}

Communicator& MpiSession::communicator() { return *world_; }

std::unique_ptr<Communicator> MpiSession::duplicate() {
  return std::make_unique<MpiCommunicator>(state_, MPI_COMM_WORLD);
}

void MpiSession::set_timeout(double seconds) { state_->timeout = seconds; }

}  // namespace nf::train

// See nccl.h.
#include "trainer/comm/nccl.h"

#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstdlib>
#include <exception>

#include "core/check.h"
#include "core/error.h"
#include "trainer/comm/deadline.h"

namespace nf::train {
namespace {

bool on_device(const void* pointer) {
  if (!pointer) return false;
  cudaPointerAttributes attributes{};
  if (cudaPointerGetAttributes(&attributes, pointer) != cudaSuccess) {
    cudaGetLastError();  // an unknown host pointer; clears the error
    return false;
  }
  return attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
}

}  // namespace

struct NcclCommunicator::Impl {
  Impl(Communicator& h, int d, double seconds) : host(h), device(d), timeout(seconds) {}

  Communicator& host;
  const int device;
  const double timeout;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  cudaEvent_t before = nullptr, after = nullptr;
  bool broken = false;  // NCCL must not be waited for again, not even to free it

  [[noreturn]] void fail(const char* call, const std::string& what) {
    broken = true;
    throw Error(ExitCode::kRank,
                "rank " + std::to_string(host.rank()) + ", GPU " + std::to_string(device),
                std::string(call) + ": " + what,
                "run with NCCL_DEBUG=WARN for NCCL's own account; comm.backend = \"mpi\" does "
                "without NCCL");
  }
  void check(cudaError_t error, const char* call) {
    if (error != cudaSuccess) fail(call, cudaGetErrorString(error));
  }
  void check(ncclResult_t result, const char* call) {
    if (result != ncclSuccess && result != ncclInProgress) fail(call, ncclGetErrorString(result));
  }

  void init();
  void settle(const char* call, const Deadline& deadline);
  template <class Queue>
  void run(const char* call, Queue queue);
  void exchange(const std::byte* send, std::span<const size_t> send_bytes, std::byte* receive,
                std::span<const size_t> receive_bytes);
  void release();
};

// Waits until NCCL has taken what it was told (calls of a non-blocking communicator return before).
void NcclCommunicator::Impl::settle(const char* call, const Deadline& deadline) {
  PollPause pause;
  for (;;) {
    ncclResult_t state = ncclInProgress;
    check(ncclCommGetAsyncError(comm, &state), call);
    check(state, call);
    if (state == ncclSuccess) return;
    if (deadline.passed())
      fail(call, "NCCL did not answer within " + std::to_string(deadline.seconds()) + " s");
    pause();
  }
}

void NcclCommunicator::Impl::init() {
  check(cudaSetDevice(device), "start");
  int least = 0, greatest = 0;
  check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "start");
  check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest), "start");
  check(cudaEventCreateWithFlags(&before, cudaEventDisableTiming), "start");
  check(cudaEventCreateWithFlags(&after, cudaEventDisableTiming), "start");
  ncclUniqueId id{};
  if (host.rank() == 0) check(ncclGetUniqueId(&id), "start");
  host.broadcast(std::as_writable_bytes(std::span(&id, 1)), 0);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const Deadline deadline(timeout);
  check(ncclCommInitRankConfig(&comm, host.size(), id, host.rank(), &config), "start");
  settle("start", deadline);
}

// Queues NCCL work behind LibTorch's current stream and waits for it with a deadline.
template <class Queue>
void NcclCommunicator::Impl::run(const char* call, Queue queue) {
  if (broken) fail(call, "an earlier call failed");
  host.barrier();  // names a rank that does not come
  check(cudaSetDevice(device), call);
  const Deadline deadline(timeout);
  const auto index = static_cast<c10::DeviceIndex>(device);
  check(cudaEventRecord(before, c10::cuda::getCurrentCUDAStream(index).stream()), call);
  check(cudaStreamWaitEvent(stream, before, 0), call);
  check(ncclGroupStart(), call);
  queue();
  check(ncclGroupEnd(), call);
  settle(call, deadline);
  check(cudaEventRecord(after, stream), call);
  PollPause pause;
  for (;;) {
    const cudaError_t state = cudaEventQuery(after);
    if (state == cudaSuccess) return;
    if (state != cudaErrorNotReady) check(state, call);
    ncclResult_t error = ncclSuccess;
    check(ncclCommGetAsyncError(comm, &error), call);
    check(error, call);
    if (deadline.passed())
      fail(call, "not finished within " + std::to_string(deadline.seconds()) + " s");
    pause();
  }
}

// send_bytes and receive_bytes per rank; a rank's bytes for itself go through NCCL as well.
void NcclCommunicator::Impl::exchange(const std::byte* send, std::span<const size_t> send_bytes,
                                      std::byte* receive, std::span<const size_t> receive_bytes) {
  for (int r = 0; r < host.size(); ++r) {
    const auto i = static_cast<size_t>(r);
    if (send_bytes[i] > 0)
      check(ncclSend(send, send_bytes[i], ncclInt8, r, comm, stream), "all_to_all");
    if (receive_bytes[i] > 0)
      check(ncclRecv(receive, receive_bytes[i], ncclInt8, r, comm, stream), "all_to_all");
    send += send_bytes[i];
    receive += receive_bytes[i];
  }
}

// Frees NCCL's memory only while all is well: after a failure its own clean-up can hang, and the
// process ends anyway.
void NcclCommunicator::Impl::release() {
  if (comm && !broken && std::uncaught_exceptions() == 0) {
    try {
      host.barrier();
      check(ncclCommFinalize(comm), "end");
      settle("end", Deadline(timeout));
      ncclCommDestroy(comm);
    } catch (const Error&) {
      broken = true;  // a destructor cannot report; what is left is freed with the process
    }
  }
  if (broken) return;
  if (before) cudaEventDestroy(before);
  if (after) cudaEventDestroy(after);
  if (stream) cudaStreamDestroy(stream);
}

NcclCommunicator::NcclCommunicator(Communicator& host, int device, double timeout_seconds)
    : impl_(std::make_unique<Impl>(host, device, timeout_seconds)) {
  impl_->init();
}

NcclCommunicator::~NcclCommunicator() { impl_->release(); }

int NcclCommunicator::rank() const { return impl_->host.rank(); }
int NcclCommunicator::size() const { return impl_->host.size(); }
void NcclCommunicator::barrier() { impl_->host.barrier(); }

void NcclCommunicator::broadcast(std::span<std::byte> data, int root) {
  Impl& s = *impl_;
  if (!on_device(data.data())) return s.host.broadcast(data, root);
  s.run("broadcast", [&] {
    s.check(ncclBroadcast(data.data(), data.data(), data.size(), ncclInt8, root, s.comm, s.stream),
            "broadcast");
  });
}

void NcclCommunicator::all_to_all(const std::byte* send, std::span<const size_t> send_bytes,
                                  std::byte* receive, std::span<const size_t> receive_bytes) {
  Impl& s = *impl_;
  if (!on_device(send) && !on_device(receive))
    return s.host.all_to_all(send, send_bytes, receive, receive_bytes);
  s.run("all_to_all", [&] { s.exchange(send, send_bytes, receive, receive_bytes); });
}

void NcclCommunicator::all_gather(const std::byte* send, std::byte* receive,
                                  std::span<const size_t> bytes) {
  Impl& s = *impl_;
  if (!on_device(send) && !on_device(receive)) return s.host.all_gather(send, receive, bytes);
  const size_t own = bytes[static_cast<size_t>(rank())];
  s.run("all_gather", [&] {
    std::byte* place = receive;
    for (int r = 0; r < size(); ++r) {
      const size_t n = bytes[static_cast<size_t>(r)];
      const bool in_place = r == rank() && place == send;
      if (own > 0 && !in_place)
        s.check(ncclSend(send, own, ncclInt8, r, s.comm, s.stream), "all_gather");
      if (n > 0 && !in_place)
        s.check(ncclRecv(place, n, ncclInt8, r, s.comm, s.stream), "all_gather");
      place += n;
    }
  });
}

void NcclCommunicator::all_reduce_sum_fast(std::span<float> data) {
  Impl& s = *impl_;
  if (!on_device(data.data())) return s.host.all_reduce_sum_fast(data);
  s.run("all_reduce_sum_fast", [&] {
    s.check(
        ncclAllReduce(data.data(), data.data(), data.size(), ncclFloat, ncclSum, s.comm, s.stream),
        "all_reduce_sum_fast");
  });
}

void NcclCommunicator::all_reduce_max(std::span<int64_t> data) {
  NF_CHECK(!on_device(data.data()));
  impl_->host.all_reduce_max(data);
}

void NcclCommunicator::all_reduce_sum(std::span<int64_t> data) {
  NF_CHECK(!on_device(data.data()));
  impl_->host.all_reduce_sum(data);
}

double NcclCommunicator::timeout_seconds() const { return impl_->timeout; }
void NcclCommunicator::check_group() { impl_->host.check_group(); }
void NcclCommunicator::interrupt(const std::string& why) { impl_->host.interrupt(why); }

void NcclCommunicator::abort(int exit_code) {
  impl_->host.abort(exit_code);
  std::_Exit(exit_code);  // not reached: the compiler does not see that abort never returns
}

}  // namespace nf::train

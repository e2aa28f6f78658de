// See fake.h.
#include "trainer/comm/fake.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/check.h"

namespace nf::train {

FakeCommunicator::FakeCommunicator(int rank, int size) : rank_(rank), size_(size) {
  NF_CHECK(size >= 1 && rank >= 0 && rank < size);
}

void FakeCommunicator::count(size_t bytes) {
  ++traffic_.collectives;
  ++traffic_.messages;
  traffic_.bytes += bytes;
}

Traffic FakeCommunicator::take_traffic() { return std::exchange(traffic_, {}); }

void FakeCommunicator::broadcast(std::span<std::byte> data, int root) {
  NF_CHECK(root == rank_, "what the other ranks would send is not known");
  count(data.size());
}

void FakeCommunicator::all_reduce_sum(std::span<int64_t> data) {
  count(data.size_bytes());
  for (int64_t& value : data)  // digests wrap around, as in a real sum
    value = static_cast<int64_t>(static_cast<uint64_t>(value) * static_cast<uint64_t>(size_));
}

void FakeCommunicator::all_reduce_sum_fast(std::span<float> data) {
  count(data.size_bytes());
  for (float& value : data) value *= static_cast<float>(size_);
}

void FakeCommunicator::all_to_all(const std::byte* send, std::span<const size_t> send_bytes,
                                  std::byte* receive, std::span<const size_t> receive_bytes) {
  const auto world = static_cast<size_t>(size_), own = static_cast<size_t>(rank_);
  NF_CHECK(send_bytes.size() == world && receive_bytes.size() == world);
  ++traffic_.collectives;
  const std::byte* mine = send;
  for (size_t r = 0; r < own; ++r) mine += send_bytes[r];
  for (size_t r = 0; r < world; ++r) {
    if (r != own && send_bytes[r] > 0) {
      ++traffic_.messages;
      traffic_.bytes += send_bytes[r];
    }
    const size_t known = std::min(receive_bytes[r], send_bytes[own]);
    std::memcpy(receive, mine, known);
    std::memset(receive + known, 0, receive_bytes[r] - known);
    receive += receive_bytes[r];
  }
}

void FakeCommunicator::all_gather(const std::byte* send, std::byte* receive,
                                  std::span<const size_t> bytes) {
  const auto world = static_cast<size_t>(size_), own = static_cast<size_t>(rank_);
  NF_CHECK(bytes.size() == world);
  ++traffic_.collectives;
  const std::vector<std::byte> mine(send, send + bytes[own]);  // send may lie inside receive
  for (size_t r = 0; r < world; ++r) {
    if (r != own && !mine.empty()) {
      ++traffic_.messages;
      traffic_.bytes += mine.size();
    }
    const size_t known = std::min(bytes[r], mine.size());
    std::memcpy(receive, mine.data(), known);
    std::memset(receive + known, 0, bytes[r] - known);
    receive += bytes[r];
  }
}

void FakeCommunicator::abort(int exit_code) { std::_Exit(exit_code); }

}  // namespace nf::train

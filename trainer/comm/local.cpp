// See local.h.
#include "trainer/comm/local.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "core/check.h"

namespace nf::train {

void LocalCommunicator::broadcast(std::span<std::byte>, int root) { NF_CHECK(root == 0); }

void LocalCommunicator::all_to_all(const std::byte* send, std::span<const size_t> send_bytes,
                                   std::byte* receive, std::span<const size_t> receive_bytes) {
  NF_CHECK(send_bytes.size() == 1 && receive_bytes.size() == 1);
  NF_CHECK(send_bytes[0] == receive_bytes[0], "a rank's message to itself has two lengths");
  if (send_bytes[0] > 0) std::memcpy(receive, send, send_bytes[0]);
}

void LocalCommunicator::all_gather(const std::byte* send, std::byte* receive,
                                   std::span<const size_t> bytes) {
  NF_CHECK(bytes.size() == 1);
  if (bytes[0] > 0 && receive != send) std::memcpy(receive, send, bytes[0]);
}

std::unique_ptr<PeerMemory> LocalCommunicator::share(size_t bytes) {
  struct Alone final : PeerMemory {
    struct alignas(64) Line {
      std::byte bytes[64];
    };
    explicit Alone(size_t n) : lines((n + 63) / 64) {}
    std::byte* of(int) const override { return lines.data()->bytes; }
    mutable std::vector<Line> lines;
  };
  return std::make_unique<Alone>(bytes);
}

void LocalCommunicator::abort(int exit_code) { std::_Exit(exit_code); }

}  // namespace nf::train

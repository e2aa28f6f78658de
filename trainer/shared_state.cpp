// See shared_state.h. Every rank's block begins with a counter of the meetings it has come to; rank
// 0's goes on with the two numbers of each AGC unit and the three buffers. An untouched page of a
// block takes no memory.
#include "trainer/shared_state.h"

#include <string>
#include <utility>

#include "core/error.h"
#include "trainer/comm/shared_counter.h"
#include "trainer/optim/agc.h"
#include "trainer/watch/activity.h"

namespace nf::train {
namespace {

constexpr size_t kPage = 4096, kArenas = 3;

size_t whole_pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
size_t unit_bytes(size_t units) { return whole_pages(units * sizeof(double)); }
size_t arena_bytes(size_t elements) { return whole_pages(elements * sizeof(float)); }

SharedCounter& counter(const PeerMemory& memory, int rank) {
  return *reinterpret_cast<SharedCounter*>(memory.of(rank));
}

}  // namespace

std::unique_ptr<SharedState> SharedState::make(Communicator& comm, const FlatLayout& layout) {
  size_t units = 0;
  for (size_t i = 0; i < layout.size(); ++i)
    units += static_cast<size_t>(agc_units(layout.shape(i)).count);
  auto memory = comm.share(comm.rank() > 0 ? kPage
                                           : kPage + 2 * unit_bytes(units) +
                                                 kArenas * arena_bytes(layout.elements()));
  if (!memory) return nullptr;
  return std::unique_ptr<SharedState>(
      new SharedState(comm, std::move(memory), units, layout.elements()));
}

SharedState::SharedState(Communicator& comm, std::unique_ptr<PeerMemory> memory, size_t units,
                         size_t elements)
    : comm_(comm), memory_(std::move(memory)), units_(units), elements_(elements) {}

at::Tensor SharedState::arena(size_t index) const {
  std::byte* const at =
      memory_->of(0) + kPage + 2 * unit_bytes(units_) + index * arena_bytes(elements_);
  return at::from_blob(at, {static_cast<int64_t>(elements_)}, at::kFloat);
}

UpdateShare SharedState::update_share() {
  const auto numbers = [&](size_t which) {
    return std::span(reinterpret_cast<double*>(memory_->of(0) + kPage + which * unit_bytes(units_)),
                     units_);
  };
  return {.rank = comm_.rank(),
          .world = comm_.size(),
          .squares = numbers(0),
          .factors = numbers(1),
          .meet = [this] { meet(); }};
}

void SharedState::meet() {
  ++meetings_;
  counter(*memory_, comm_.rank()).post(meetings_);
  const Waiting waiting(activity_, Wait::kRanks);  // not this rank's fault
  const Deadline deadline(comm_.timeout_seconds());
  for (int r = 0; r < comm_.size(); ++r)
    if (!counter(*memory_, r).wait(meetings_, deadline, [&] { comm_.check_group(); }))
      throw Error(ExitCode::kRank, "rank " + std::to_string(comm_.rank()),
                  "update: rank " + std::to_string(r) + " did not do its part within " +
                      std::to_string(comm_.timeout_seconds()) + " s",
                  "look at the named rank's log, then run the same command again");
}

}  // namespace nf::train

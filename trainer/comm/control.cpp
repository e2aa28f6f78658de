// See control.h. A gather rather than a reduction: it is one collective for seven different
// operations, and it tells which rank is at fault.
#include "trainer/comm/control.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/check.h"
#include "trainer/comm/grad_reducer.h"

namespace nf::train {
namespace {

struct Words {
  uint64_t stop_flags, known_finite, valid_samples, error_code, sample_digest;
  double step_seconds;
};

void unite(Control& united, const Words& w, int rank) {
  united.stop_flags |= w.stop_flags;
  united.known_finite = united.known_finite && w.known_finite == 1;
  united.valid_samples += static_cast<int64_t>(w.valid_samples);
  united.error_code = std::max(united.error_code, static_cast<int>(w.error_code));
  united.sample_digest += w.sample_digest;
  united.step_seconds = std::max(united.step_seconds, w.step_seconds);
  if (static_cast<int>(w.error_code) > 0 && united.first_faulty_rank < 0)
    united.first_faulty_rank = rank;
}

}  // namespace

Control agree(Communicator& comm, const Control& mine, uint64_t micro_batches,
              std::span<const LeafSums> own, std::vector<LeafSums>* all) {
  std::vector<size_t> bytes;
  size_t total = 0;
  for (int r = 0; r < comm.size(); ++r) {
    size_t leaves = 0;
    if (micro_batches > 0) {
      const auto [begin, end] = micro_batch_range(micro_batches, r, comm.size());
      leaves = end - begin;
    }
    if (r == comm.rank()) NF_CHECK(own.size() == leaves);
    bytes.push_back(sizeof(Words) + leaves * sizeof(LeafSums));
    total += bytes.back();
  }
  const Words words = {mine.stop_flags,
                       mine.known_finite ? 1u : 0u,
                       static_cast<uint64_t>(mine.valid_samples),
                       static_cast<uint64_t>(mine.error_code),
                       mine.sample_digest,
                       mine.step_seconds};
  std::vector<std::byte> send(sizeof words + own.size_bytes()), received(total);
  std::memcpy(send.data(), &words, sizeof words);
  if (!own.empty()) std::memcpy(send.data() + sizeof words, own.data(), own.size_bytes());
  comm.all_gather(send.data(), received.data(), bytes);
  Control united;
  if (all) all->resize(micro_batches);
  size_t at = 0, leaf = 0;
  for (int r = 0; r < comm.size(); ++r) {
    Words w{};
    std::memcpy(&w, received.data() + at, sizeof w);
    unite(united, w, r);
    const size_t leaf_bytes = bytes[static_cast<size_t>(r)] - sizeof w;
    if (all && leaf_bytes > 0)
      std::memcpy(all->data() + leaf, received.data() + at + sizeof w, leaf_bytes);
    leaf += leaf_bytes / sizeof(LeafSums);
    at += bytes[static_cast<size_t>(r)];
  }
  return united;
}

}  // namespace nf::train

// See control.h. A gather rather than a reduction: it is one collective for five different
// operations, and it tells which rank is at fault.
#include "trainer/comm/control.h"

#include <algorithm>
#include <array>

namespace nf::train {

Control agree(Communicator& comm, const Control& mine) {
  using Words = std::array<uint64_t, 5>;
  const Words own = {mine.stop_flags, mine.finite ? 1u : 0u,
                     static_cast<uint64_t>(mine.valid_samples),
                     static_cast<uint64_t>(mine.error_code), mine.sample_digest};
  std::vector<Words> all(static_cast<size_t>(comm.size()));
  const std::vector<size_t> bytes(all.size(), sizeof(Words));
  comm.all_gather(reinterpret_cast<const std::byte*>(own.data()),
                  reinterpret_cast<std::byte*>(all.data()), bytes);
  Control united;
  for (size_t r = 0; r < all.size(); ++r) {
    const auto& [stop, finite, valid, error, digest] = all[r];
    united.stop_flags |= stop;
    united.finite = united.finite && finite == 1;
    united.valid_samples += static_cast<int64_t>(valid);
    united.error_code = std::max(united.error_code, static_cast<int>(error));
    united.sample_digest += digest;
    const bool faulty = finite == 0 || static_cast<int>(error) > 0;
    if (faulty && united.first_faulty_rank < 0) united.first_faulty_rank = static_cast<int>(r);
  }
  return united;
}

}  // namespace nf::train

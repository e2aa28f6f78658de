// Weights, momentum and average that the ranks of one host hold once, in memory they share: each
// updates its part of them, so the update's traffic is divided by the number of ranks. The bits are
// those of ranks that update all of it alone.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "trainer/comm/communicator.h"
#include "trainer/optim/param_group.h"
#include "trainer/optim/update_pass.h"

namespace nf::train {

class Activity;

class SharedState {
 public:
  // Collective, as is every use of what it gives. Null where the ranks cannot share memory. comm
  // must outlive it.
  static std::unique_ptr<SharedState> make(Communicator& comm, const FlatLayout& layout);

  // Flat float32 buffers, zero at the start, the same memory on every rank: one rank writes to
  // them, with a barrier before others read, or all through the update.
  at::Tensor weights() const { return arena(0); }
  at::Tensor momentum() const { return arena(1); }
  at::Tensor average() const { return arena(2); }

  // Good while this object lives.
  UpdateShare update_share();
  // Told when a rank waits for others in an update; null: nobody. Must live as long as updates go
  // on.
  void watch(Activity* activity) { activity_ = activity; }

 private:
  SharedState(Communicator& comm, std::unique_ptr<PeerMemory> memory, size_t units,
              size_t elements);
  void meet();
  at::Tensor arena(size_t index) const;

  Communicator& comm_;
  const std::unique_ptr<PeerMemory> memory_;
  const size_t units_, elements_;
  uint32_t meetings_ = 0;
  Activity* activity_ = nullptr;
};

}  // namespace nf::train

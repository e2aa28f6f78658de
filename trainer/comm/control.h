// What the ranks must agree on at every step boundary, in one small collective: stop requests,
// errors, whether the gradient is known to be finite, how many samples counted and which samples
// were used. All ranks get the same answer and so act at the same step; a request or an error on
// one rank is enough.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trainer/comm/communicator.h"

namespace nf::train {

struct Control {
  uint64_t stop_flags = 0;     // bits; united over ranks
  bool known_finite = true;    // the gradient: all ranks know it of their parts
  int64_t valid_samples = 0;   // summed
  int error_code = 0;          // an ExitCode, 0 = none; the largest
  uint64_t sample_digest = 0;  // summed modulo 2^64
  double step_seconds = 0;     // the slowest rank's last step
  // Set by agree(): the first rank that has error_code > 0; -1 = none.
  int first_faulty_rank = -1;
};

// What a micro-batch adds to a step's figures; sums over its valid samples.
struct LeafSums {
  double loss = 0, top1 = 0;
};

// `own`: this rank's micro-batches in order; `all` (if given) gets those of all ranks, in order,
// bit for bit. own.size() must follow from micro_batch_range() for `micro_batches`.
Control agree(Communicator& comm, const Control& mine, uint64_t micro_batches = 0,
              std::span<const LeafSums> own = {}, std::vector<LeafSums>* all = nullptr);

}  // namespace nf::train

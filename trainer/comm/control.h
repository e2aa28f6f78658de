// What the ranks must agree on at every step boundary, in one small collective: stop requests,
// errors, whether the step's numbers are finite, how many samples counted and which samples were
// used. All ranks get the same answer and so act at the same step; a request or an error on one
// rank is enough.
#pragma once

#include <cstdint>

#include "trainer/comm/communicator.h"

namespace nf::train {

struct Control {
  uint64_t stop_flags = 0;     // bits; united over ranks
  bool finite = true;          // all ranks'
  int64_t valid_samples = 0;   // summed
  int error_code = 0;          // an ExitCode, 0 = none; the largest
  uint64_t sample_digest = 0;  // summed modulo 2^64
  // Set by agree(): the first rank that is not finite or has error_code > 0; -1 = none.
  int first_faulty_rank = -1;
};

Control agree(Communicator& comm, const Control& mine);

}  // namespace nf::train

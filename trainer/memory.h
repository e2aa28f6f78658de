// How much memory a rank needs, told before it is needed: by --dry-run, at the start of a run, and
// for train.recompute = "auto".
#pragma once

#include <cstdint>
#include <string>

#include "models/nfnet/spec.h"
#include "trainer/run_config.h"

namespace nf::train {

// Bytes. On a GPU `parameters` and `activations` are its memory, the rest is the host's.
struct MemoryEstimate {
  double program = 0;      // the process with its libraries
  double parameters = 0;   // weights, gradient, momentum, average, SAM's copies, gradient sums
  double activations = 0;  // the most that a step or an evaluation takes
  double images = 0;       // of the loader
  double checkpoint = 0;   // what the copy that is being saved takes on top, rank 0
  double total() const { return program + parameters + activations + images + checkpoint; }
};

// Of rank 0 of `ranks`, in a run of `steps` updates. recompute: whether blocks are computed again.
MemoryEstimate estimate_memory(const RunConfig& config, const model::NfnetSpec& spec, int ranks,
                               uint64_t steps, bool recompute);

// "memory of a rank: about 123 MiB (weights ..., ...)"
std::string to_text(const MemoryEstimate& estimate);

// What train.recompute asks for; equal or not on the ranks, it changes no bit. "auto": yes when a
// rank would take more than four fifths of train.memory_gib, or, where that is 0, of its share of
// the host's free memory (on a GPU then always).
bool choose_recompute(const RunConfig& config, const model::NfnetSpec& spec, int ranks,
                      int ranks_of_host, bool on_cpu);

}  // namespace nf::train

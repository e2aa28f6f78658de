// Linked into forgetful_train in place of Sampler::fill (ld --wrap): the order of a loader that
// forgets its place. At each position that FORGET_AT names (comma-separated, ascending: where the
// run was preempted) it starts again at the head of the order, as a pipeline does that keeps no
// state. Everything else of the run goes on exactly as without a preemption, so that nothing but
// the samples differs; no process needs to be killed for it. For bench/study.py only.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "data_pipeline/sampler.h"

namespace {

std::vector<uint64_t> preemptions() {
  std::vector<uint64_t> out;
  const char* text = std::getenv("FORGET_AT");
  std::istringstream in(text ? text : "");
  for (std::string word; std::getline(in, word, ',');) out.push_back(std::stoull(word));
  return out;
}

uint64_t forgotten(uint64_t position) {
  static const std::vector<uint64_t> at = preemptions();
  uint64_t life = 0;
  for (const uint64_t begin : at)
    if (begin <= position) life = begin;
  return position - life;
}

}  // namespace

// nf::data::Sampler::fill(uint64_t begin, std::span<uint64_t> out) const
// NOLINTBEGIN(bugprone-reserved-identifier): the names that the linker's --wrap gives
extern "C" {
void __real__ZNK2nf4data7Sampler4fillEmSt4spanImLm18446744073709551615EE(const nf::data::Sampler*,
                                                                         uint64_t,
                                                                         std::span<uint64_t>);
void __wrap__ZNK2nf4data7Sampler4fillEmSt4spanImLm18446744073709551615EE(
    const nf::data::Sampler* self, uint64_t begin, std::span<uint64_t> out) {
  const bool training = self->options().shuffle != nf::data::Shuffle::kNone;
  __real__ZNK2nf4data7Sampler4fillEmSt4spanImLm18446744073709551615EE(
      self, training ? forgotten(begin) : begin, out);
}
}
// NOLINTEND(bugprone-reserved-identifier)

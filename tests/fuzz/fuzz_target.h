// What a fuzz target provides: one input at a time, and seeds to begin with. A finding is a crash,
// a sanitizer's report, or fuzz_expect() of something false.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace nf::fuzz {

using Bytes = std::vector<uint8_t>;

// Drawn by arithmetic; files of ../shared/data/odd are added by the caller where they are.
std::vector<Bytes> seeds();

inline void fuzz_expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "finding: %s\n", what);
  std::abort();
}

}  // namespace nf::fuzz

// Runs independent pieces of work on threads; the calling thread only watches, so progress is
// reported from one thread. Work is claimed in order of its index. After a failure no new piece is
// begun and the failure of the smallest index is rethrown.
#pragma once

#include <cstdint>
#include <functional>

namespace nf::data {

// body(i) for i in [0, count) on `workers` threads (>= 1). `watch` is called a few times a second
// while threads work.
void parallel_for(uint64_t count, int workers, const std::function<void(uint64_t)>& body,
                  const std::function<void()>& watch);

}  // namespace nf::data

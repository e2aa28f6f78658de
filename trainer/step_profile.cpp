// See step_profile.h.
#include "trainer/step_profile.h"

#include <fmt/format.h>

namespace nf::train {

Timeline* StepProfile::before(uint64_t step) {
  if (range_ && step == range_->first) {
    timeline_ = std::make_shared<Timeline>();
    reducer_.record(timeline_);
  }
  return timeline_.get();
}

void StepProfile::after(uint64_t step, bool run_ends) {
  if (!timeline_ || (step != range_->last && !run_ends)) return;
  reducer_.record(nullptr);
  std::filesystem::create_directories(run_dir_ / "timeline");
  timeline_->write(run_dir_ / "timeline" / fmt::format("rank_{:05}.json", rank_), rank_);
  timeline_.reset();
}

}  // namespace nf::train

// train.profile: a timeline of a range of steps, one file a rank (RUN_DIR/timeline).
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "core/timeline.h"
#include "trainer/comm/grad_reducer.h"
#include "trainer/run_config.h"

namespace nf::train {

class StepProfile {
 public:
  // range: nullopt for none. reducer must outlive it.
  StepProfile(std::optional<StepRange> range, std::filesystem::path run_dir, int rank,
              GradReducer& reducer)
      : range_(range), run_dir_(std::move(run_dir)), rank_(rank), reducer_(reducer) {}

  // Before a step: where its spans go; null outside the range, and where a run was resumed inside.
  Timeline* before(uint64_t step);
  // After a step: writes the file behind the range's last one, or when the run ends inside it.
  void after(uint64_t step, bool run_ends);

 private:
  const std::optional<StepRange> range_;
  const std::filesystem::path run_dir_;
  const int rank_;
  GradReducer& reducer_;
  std::shared_ptr<Timeline> timeline_;  // shared: a step that fails leaves the exchange behind
};

}  // namespace nf::train

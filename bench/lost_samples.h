// The defect that a published scaling study reports of its own runs, reproduced: a pipeline that
// reads files in order through a shuffle buffer and starts again at the head of the list after each
// preemption loses most samples and repeats the rest. Ours, under the same kills, uses each sample
// once per epoch, because its only state is the position.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/jsonl.h"

namespace nf::bench {

struct LostSamplesOptions {
  uint64_t samples = 1'281'167;  // ImageNet in its usual 1,024 files
  uint64_t files = 1024;
  uint64_t hosts = 8;  // each reads every hosts-th file
  uint64_t batch = 4096;
  uint64_t buffer_batches = 10;  // shuffle buffer of a host, in batches of that host
  double epochs = 3;
  uint64_t kills = 30;  // at distinct steps, drawn uniformly
  uint64_t checkpoint_every =
      10;  // steps; work since the last checkpoint is lost, for every pipeline alike
  uint64_t seed = 1;
};

enum class Pipeline {
  kFixedFiles,     // files in the same order after each start
  kShuffledFiles,  // files in a new order after each start: the common remedy
  kOurs
};
const char* to_string(Pipeline pipeline);

// Steps during which the run is killed, ascending.
std::vector<uint64_t> kill_steps(const LostSamplesOptions& options);

// How often each sample's gradient is in the final weights: uses in steps that were lost with a
// kill do not count.
std::vector<uint32_t> times_used(const LostSamplesOptions& options, Pipeline pipeline);

struct UseCounts {
  Pipeline pipeline = Pipeline::kOurs;
  std::vector<uint64_t> samples_used;             // [k]: samples used k times
  uint64_t never = 0, wanted = 0, too_often = 0;  // wanted: as often as there are epochs
  uint32_t most = 0;
};
UseCounts count_uses(const LostSamplesOptions& options, Pipeline pipeline);

Json to_json(const LostSamplesOptions& options, const std::vector<UseCounts>& results);
// One line a pipeline.
std::string table(const LostSamplesOptions& options, const std::vector<UseCounts>& results);
// A gnuplot script that draws the histogram as `svg`.
std::string plot_script(const LostSamplesOptions& options, const std::vector<UseCounts>& results,
                        const std::string& svg);

}  // namespace nf::bench

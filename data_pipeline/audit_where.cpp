// See audit_where.h.
#include "data_pipeline/audit_where.h"

#include <fmt/format.h>

#include "core/error.h"
#include "data_pipeline/dataset_index.h"

namespace nf::data {

Json answer_where(const std::filesystem::path& dataset, const WhereQuery& query) {
  const DatasetIndex index = read_dataset_index(dataset);
  const SplitEntry* split = index.find(query.split);
  if (split == nullptr) {
    std::string names;
    for (const SplitEntry& s : index.splits) names += (names.empty() ? "" : ", ") + s.name;
    throw Error(ExitCode::kData, dataset.string(), "no split \"" + query.split + "\"",
                "splits of this data set: " + names);
  }
  if (query.sample >= split->samples) {
    throw Error(ExitCode::kUsage, "--sample",
                fmt::format("{} is past the end of {}", query.sample, query.split),
                fmt::format("samples are numbered 0 to {}", split->samples - 1));
  }
  const Sampler sampler({.samples = split->samples,
                         .seed = query.seed,
                         .shuffle = query.shuffle,
                         .repeat = query.repeat,
                         .shard_samples = split->shard_samples,
                         .window_shards = query.window_shards});
  if (query.epoch >= (uint64_t{1} << 62) / sampler.positions_per_epoch()) {
    throw Error(ExitCode::kUsage, "--epoch", "the position would be beyond 2^62");
  }
  const uint64_t position = sampler.position_of(query.sample, query.epoch);
  Json answer = {{"split", query.split},   {"samples", split->samples}, {"seed", query.seed},
                 {"sample", query.sample}, {"epoch", query.epoch},      {"position", position},
                 {"repeat", query.repeat}};
  if (query.batch_size > 0) {
    answer["step"] = position / query.batch_size + 1;
    answer["slot"] = position % query.batch_size;
  }
  return answer;
}

}  // namespace nf::data

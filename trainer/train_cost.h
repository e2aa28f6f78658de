// What training costs in floating-point operations, SAM's ascent pass and changing image sizes
// included: one rule for the mfu column, result.json and dry runs.
#pragma once

#include <cstdint>

#include "data_pipeline/loader.h"
#include "models/nfnet/spec.h"
#include "trainer/run_config.h"

namespace nf::train {

// Six operations for each multiply-add of a forward pass; SAM adds the same for the examples of its
// ascent pass. What recomputation adds is no training.
double train_flops_per_image(const RunConfig& config, const model::NfnetSpec& spec,
                             int64_t image_size);

// Mean over the positions [0, position) of a run, and their sum.
double mean_flops_per_image(const RunConfig& config, const model::NfnetSpec& spec,
                            const data::TrainPlan& plan, uint64_t position);
double train_flops(const RunConfig& config, const model::NfnetSpec& spec,
                   const data::TrainPlan& plan, uint64_t position);

}  // namespace nf::train

// Fine-tuning by layer: which parameters stay as they are, and which learn more slowly. Names and
// layers are timm's, so that a recipe carries over.
#pragma once

#include <string>
#include <vector>

#include "models/nfnet/spec.h"
#include "trainer/optim/param_group.h"
#include "trainer/run_config.h"

namespace nf::train {

// timm's layers of an NFNet (group_matcher): 0 the stem, then one for each block, the last block's
// together with final_conv, and the classifier, which is layer_count() - 1.
int64_t layer_of(const std::string& parameter, const model::NfnetSpec& spec);
int64_t layer_count(const model::NfnetSpec& spec);

// Sets `frozen` and `lr_scale` of each parameter by optimizer.freeze, optimizer.layer_decay
// (layer_decay^(layer_count - 1 - layer), as timm's --layer-decay) and optimizer.stage_scale (stem,
// four stages, final_conv with classifier); scales multiply. A frozen parameter no longer requires
// a gradient. Throws Error(kUsage) for a name that matches no parameter, and when nothing is left
// to train.
void apply_layer_rules(const OptimizerConfig& config, const model::NfnetSpec& spec,
                       std::vector<Param>& params);

}  // namespace nf::train

// See train_cost.h.
#include "trainer/train_cost.h"

#include <algorithm>
#include <cmath>

#include "models/nfnet/cost.h"
#include "trainer/optim/sam.h"

namespace nf::train {

double train_flops_per_image(const RunConfig& c, const model::NfnetSpec& spec, int64_t image_size) {
  const double once = 6.0 * model::forward_macs(spec, image_size);
  if (c.sam.rho <= 0) return once;
  const int64_t micro_batch = c.batch.size / c.batch.micro_batches;
  return once * (1.0 + static_cast<double>(ascent_count(c.sam.fraction, micro_batch)) /
                           static_cast<double>(micro_batch));
}

double train_flops(const RunConfig& c, const model::NfnetSpec& spec, const data::TrainPlan& plan,
                   uint64_t position) {
  if (plan.sizes.empty())
    return train_flops_per_image(c, spec, c.data.image_size) * static_cast<double>(position);
  double total = 0;
  for (size_t i = 0; i < plan.sizes.size(); ++i) {
    // A batch has the size of its first position: stages begin with the first batch at or after it.
    const auto first_of = [&](size_t stage) {
      if (stage >= plan.sizes.size()) return position;
      const uint64_t steps = (plan.sizes[stage].begin + plan.batch_size - 1) / plan.batch_size;
      return std::min(position, steps * plan.batch_size);
    };
    total += train_flops_per_image(c, spec, plan.sizes[i].image_size) *
             static_cast<double>(first_of(i + 1) - first_of(i));
  }
  return total;
}

double mean_flops_per_image(const RunConfig& c, const model::NfnetSpec& spec,
                            const data::TrainPlan& plan, uint64_t position) {
  if (plan.sizes.empty() || position == 0)
    return train_flops_per_image(c, spec, final_image_size(c));
  return train_flops(c, spec, plan, position) / static_cast<double>(position);
}

}  // namespace nf::train

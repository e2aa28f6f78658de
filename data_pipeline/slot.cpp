// See slot.h.
#include "data_pipeline/slot.h"

#include <algorithm>

namespace nf::data {
namespace {

constexpr uint8_t kBadPixel = 128;

// Labels of a record whose checksum is wrong may be anything; the loss still indexes by them, with
// weight 0.
void mend_labels(std::vector<int32_t>& labels, size_t classes) {
  const auto valid = [classes](int32_t label) {
    return label >= 0 && static_cast<size_t>(label) < classes;
  };
  if (labels.empty() || !std::all_of(labels.begin(), labels.end(), valid)) labels = {0};
}

void mix_partner(const ShardDataset& dataset, const AugmentOptions& options, uint64_t seed,
                 const SlotSource& source, uint8_t* pixels, SlotMemory& memory,
                 SlotResult& result) {
  SampleFault fault = dataset.read(*source.partner, memory.partner);
  memory.partner_pixels.resize(static_cast<size_t>(options.image_size * options.image_size * 3));
  if (fault.ok())
    fault = load_image(memory.partner, options, partner_seed(seed), source.position,
                       memory.partner_pixels.data(), memory.scratch);
  if (!fault.ok()) {  // reported where the sample stands itself
    result.mix_labels = result.labels;
    return;
  }
  const MixDraw draw = draw_mix(options.mix, options.image_size, seed, source.position);
  mix_images(draw, options.image_size, pixels, memory.partner_pixels.data());
  result.mix_labels = memory.partner.labels;
  result.ratio = static_cast<float>(draw.ratio(options.image_size));
}

}  // namespace

SlotResult fill_slot(const ShardDataset& dataset, const AugmentOptions& options, uint64_t seed,
                     const SlotSource& source, uint8_t* pixels, SlotMemory& memory) {
  SlotResult result;
  const int64_t side = options.image_size;
  memory.sample.labels.clear();
  result.fault = dataset.read(source.sample, memory.sample);
  const bool intact = result.fault.ok();
  if (intact)
    result.fault =
        load_image(memory.sample, options, seed, source.position, pixels, memory.scratch);
  result.labels = memory.sample.labels;
  if (!result.fault.ok()) {
    if (!intact) mend_labels(result.labels, dataset.class_names().size());
    if (source.partner) result.mix_labels = result.labels;
    std::fill_n(pixels, static_cast<size_t>(side * side * 3), kBadPixel);
    return result;
  }
  if (source.partner) mix_partner(dataset, options, seed, source, pixels, memory, result);
  rand_augment(options.randaugment, side, side, seed, source.position, pixels, memory.spare);
  return result;
}

}  // namespace nf::data

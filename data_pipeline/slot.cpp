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

// Reads, checks and decodes one sample. Bytes in a mapped shard that may have changed under the
// decoder's eyes are read again and decoded from a copy. `intact`: the record is what was packed.
SampleFault load_sample(const ShardDataset& dataset, uint64_t sample, const AugmentOptions& options,
                        uint64_t seed, uint64_t position, uint8_t* pixels, SampleView& view,
                        LoadScratch& scratch, bool& intact) {
  const auto decode = [&](const SampleFault& fault) {
    intact = fault.ok();
    return intact ? load_image(view.bytes, options, seed, position, pixels, scratch) : fault;
  };
  SampleFault fault = decode(dataset.view(sample, view));
  if (dataset.is_doubtful(view)) fault = decode(dataset.view_copy(sample, view));
  view.release();
  return fault;
}

void mix_partner(const ShardDataset& dataset, const AugmentOptions& options, uint64_t seed,
                 const SlotSource& source, uint8_t* pixels, SlotMemory& memory,
                 SlotResult& result) {
  memory.partner_pixels.resize(static_cast<size_t>(options.image_size * options.image_size * 3));
  bool intact = false;
  const SampleFault fault =
      load_sample(dataset, *source.partner, options, partner_seed(seed), source.position,
                  memory.partner_pixels.data(), memory.partner, memory.scratch, intact);
  if (!fault.ok()) {  // reported where the sample stands itself
    result.mix_labels = result.labels;
    return;
  }
  const MixDraw draw = draw_mix(options.mix, options.image_size, seed, source.position);
  mix_images(draw, options.image_size, pixels, memory.partner_pixels.data());
  result.mix_labels = memory.partner.data.labels;
  result.ratio = static_cast<float>(draw.ratio(options.image_size));
}

}  // namespace

SlotResult fill_slot(const ShardDataset& dataset, const AugmentOptions& options, uint64_t seed,
                     const SlotSource& source, uint8_t* pixels, SlotMemory& memory) {
  SlotResult result;
  const int64_t side = options.image_size;
  memory.sample.data.labels.clear();
  bool intact = false;
  result.fault = load_sample(dataset, source.sample, options, seed, source.position, pixels,
                             memory.sample, memory.scratch, intact);
  result.labels = memory.sample.data.labels;
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

// Threads that turn positions into decoded, augmented micro-batches. The loader has no state but a
// cursor: seek() costs microseconds, and since a job's output goes to the slot its position names,
// order of work cannot matter. A bad sample keeps its slot with weight 0.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data_pipeline/augment.h"
#include "data_pipeline/sampler.h"
#include "data_pipeline/shard_dataset.h"

namespace nf::data {

struct PositionRange {
  uint64_t begin = 0, end = 0;  // may be empty: a micro-batch past the end of the run
  int64_t image_size = 0;       // pixels a side; 0: that of the loader's options
};

// The k-th micro-batch that this rank takes; nullopt after the last. Pure function, called from any
// thread.
using BatchPlan = std::function<std::optional<PositionRange>(uint64_t k)>;

// Training: batches of `batch_size` positions in `micro_batches` equal micro-batches; rank r of W
// takes micro-batches [floor(r V / W), floor((r + 1) V / W)) of each batch; the run ends at
// `end_position` (the last batch may be partial). k counts this rank's micro-batches from step 0.
struct TrainPlan {
  uint64_t batch_size = 0, micro_batches = 0, end_position = 0;
  uint64_t rank = 0, world = 1;
  // Progressive image sizes: a batch has the size of the last stage that begins at or before its
  // first position; without stages that of the loader's options.
  struct SizeStage {
    uint64_t begin = 0;
    int64_t image_size = 0;
  };
  std::vector<SizeStage> sizes = {};  // by begin, the first at 0

  int64_t image_size(uint64_t step) const;  // 0 without stages
  uint64_t first() const { return rank * micro_batches / world; }
  uint64_t last() const { return (rank + 1) * micro_batches / world; }
  uint64_t per_step() const { return last() - first(); }
  uint64_t steps() const { return (end_position + batch_size - 1) / batch_size; }
  std::optional<PositionRange> range(uint64_t step, uint64_t micro_batch) const;
  BatchPlan plan() const;  // starts at step 0; k = step * per_step() + (m - first())
};

// Evaluation: chunks of `chunk` positions over [0, samples); rank r takes chunks r, r + W, ...
BatchPlan eval_plan(uint64_t samples, uint64_t chunk, uint64_t rank, uint64_t world);

struct BadSample {
  uint64_t position, sample;
  std::string reason;
};

struct MicroBatch {
  uint64_t k = 0;          // index in the plan
  PositionRange range;     // range.end - range.begin = count
  int64_t count = 0;       // images in this micro-batch
  int64_t image_size = 0;  // pixels a side
  std::vector<uint8_t>
      pixels;  // [count, image_size, image_size, 3] RGB; 64-byte aligned data is not promised
  std::vector<uint64_t> samples;       // [count] indices in the split
  std::vector<float> weights;          // [count] 1, or 0 for a bad sample
  std::vector<int32_t> labels;         // concatenated labels
  std::vector<uint32_t> label_offset;  // [count + 1] into labels
  // Of the second images, when the options mix; empty otherwise. The target of sample i is
  // mix_ratio[i] x its labels + (1 - mix_ratio[i]) x its mix_labels.
  std::vector<uint64_t> mix_samples;       // [count]
  std::vector<float> mix_ratio;            // [count]
  std::vector<int32_t> mix_labels;         // as labels
  std::vector<uint32_t> mix_label_offset;  // [count + 1]
  std::vector<BadSample> bad;
};

struct LoaderOptions {
  int workers = 2;   // threads; 0 decodes in next()
  int prefetch = 4;  // micro-batches in flight beyond the one handed out, >= 1
  // Images: how far ahead of decoding the system is asked to fetch bytes from the disk; 0: not.
  int read_ahead = 16;
};

class Loader {
 public:
  // Keeps references: dataset must outlive the loader. `seed` and a sample's position alone decide
  // its augmentation.
  Loader(const ShardDataset& dataset, const Sampler& sampler, BatchPlan plan,
         const AugmentOptions& augment, uint64_t seed, const LoaderOptions& options);
  ~Loader();  // joins the threads
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // seek() and next() belong to one thread; work begins with the first of them.
  void seek(uint64_t k);  // the next micro-batch is the plan's k-th; work in flight is dropped
  // The next micro-batch, nullopt after the plan's end. Rethrows a worker's failure; the same
  // micro-batch is then tried again by the next call.
  std::optional<MicroBatch> next();
  // Gives a used micro-batch's memory back for a later one. Optional.
  void recycle(MicroBatch&& used);
  double wait_seconds() const;  // total time that next() has waited for pixels

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nf::data

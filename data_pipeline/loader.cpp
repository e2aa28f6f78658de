// See loader.h. One lock guards the list of micro-batches in flight; workers take one image at a
// time from the oldest one that has any left, and write only to that image's slot. Dropping work is
// dropping the list: a worker that is still busy owns its micro-batch through a shared_ptr and
// finishes into memory that nobody reads.
#include "data_pipeline/loader.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "core/check.h"
#include "data_pipeline/slot.h"

namespace nf::data {

std::optional<PositionRange> TrainPlan::range(uint64_t step, uint64_t micro_batch) const {
  if (step >= steps()) return std::nullopt;
  const uint64_t size = batch_size / micro_batches;
  const uint64_t begin = std::min(step * batch_size + micro_batch * size, end_position);
  return PositionRange{begin, std::min(begin + size, end_position), image_size(step)};
}

int64_t TrainPlan::image_size(uint64_t step) const {
  int64_t size = 0;
  for (const SizeStage& stage : sizes)
    if (stage.begin <= step * batch_size) size = stage.image_size;
  return size;
}

BatchPlan TrainPlan::plan() const {
  NF_CHECK(micro_batches > 0 && batch_size > 0 && batch_size % micro_batches == 0,
           "TrainPlan: micro_batches must divide batch_size");
  NF_CHECK(world > 0 && rank < world && world <= micro_batches,
           "TrainPlan: every rank needs a micro-batch");
  return [plan = *this](uint64_t k) {
    return plan.range(k / plan.per_step(), plan.first() + k % plan.per_step());
  };
}

BatchPlan eval_plan(uint64_t samples, uint64_t chunk, uint64_t rank, uint64_t world) {
  NF_CHECK(chunk > 0 && world > 0 && rank < world, "eval_plan: bad chunk or rank");
  return [=](uint64_t k) -> std::optional<PositionRange> {
    const uint64_t chunks = samples / chunk + (samples % chunk != 0);
    if (rank >= chunks || k > (chunks - 1 - rank) / world) return std::nullopt;
    const uint64_t begin = (k * world + rank) * chunk;
    return PositionRange{begin, std::min(begin + chunk, samples), 0};
  };
}

namespace {

// One image's results beside its pixels. Each worker writes only the entries of the images it took.
struct Item {
  SlotResult result;
  std::exception_ptr failure;
};

struct Job {
  MicroBatch batch;
  std::vector<Item> items;
  size_t taken = 0, done = 0;  // images; under the loader's lock
};

}  // namespace

struct Loader::Impl {
  using Clock = std::chrono::steady_clock;

  Impl(const ShardDataset& set, const Sampler& order, BatchPlan batches, const AugmentOptions& how,
       uint64_t run_seed, const LoaderOptions& loader_options)
      : dataset(set),
        sampler(order),
        plan(std::move(batches)),
        augment(how),
        seed(run_seed),
        options(loader_options) {
    NF_CHECK(options.workers >= 0 && options.prefetch >= 1 && options.read_ahead >= 0,
             "Loader: bad options");
    if (augment.mix.on()) partners.emplace(partner_order(order.options(), run_seed));
    NF_CHECK(order.options().samples == set.size(), "Loader: order and data set differ in size");
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    work_ready.notify_all();
    for (std::thread& thread : threads) thread.join();
  }

  std::shared_ptr<Job> make_job(uint64_t k);
  void load_item(Job& job, size_t i, SlotMemory& memory) const;
  MicroBatch finish(Job& job) const;
  std::shared_ptr<Job> job_with_work() const;
  std::optional<uint64_t> sample_ahead(const Job& job, size_t i) const;
  void schedule();
  void work();
  std::shared_ptr<Job> wait_for_front();

  const ShardDataset& dataset;
  const Sampler& sampler;
  const BatchPlan plan;
  const AugmentOptions augment;
  const uint64_t seed;
  const LoaderOptions options;
  std::optional<Sampler> partners;  // of mixing; set once

  // Only the thread that calls seek() and next():
  uint64_t next_k = 0;       // handed out next
  uint64_t scheduled_k = 0;  // put in flight next
  double waited = 0;
  std::vector<std::vector<uint8_t>> spare_pixels;
  SlotMemory own_memory;  // without threads

  mutable std::mutex mutex;
  std::condition_variable work_ready, job_done;
  std::deque<std::shared_ptr<Job>> in_flight;  // by k; guarded by mutex
  bool stopping = false;                       // guarded by mutex
  std::vector<std::thread> threads;
};

// nullptr after the plan's end.
std::shared_ptr<Job> Loader::Impl::make_job(uint64_t k) {
  const std::optional<PositionRange> range = plan(k);
  if (!range) return nullptr;
  NF_CHECK(range->begin <= range->end, "Loader: the plan gave a range that ends before it begins");
  auto job = std::make_shared<Job>();
  MicroBatch& batch = job->batch;
  batch.k = k;
  batch.range = *range;
  batch.image_size = range->image_size > 0 ? range->image_size : augment.image_size;
  const size_t count = range->end - range->begin;
  batch.count = static_cast<int64_t>(count);
  batch.samples.resize(count);
  sampler.fill(range->begin, batch.samples);
  if (partners) {
    batch.mix_samples.resize(count);
    partners->fill(range->begin, batch.mix_samples);
  }
  batch.weights.assign(count, 1.0f);
  if (!spare_pixels.empty()) {
    batch.pixels = std::move(spare_pixels.back());
    spare_pixels.pop_back();
  }
  const auto side = static_cast<size_t>(batch.image_size);
  batch.pixels.resize(count * side * side * 3);
  job->items.resize(count);
  return job;
}

void Loader::Impl::load_item(Job& job, size_t i, SlotMemory& memory) const {
  Item& item = job.items[i];
  MicroBatch& batch = job.batch;
  const auto side = static_cast<size_t>(batch.image_size);
  AugmentOptions sized = augment;
  sized.image_size = batch.image_size;
  SlotSource source{batch.range.begin + i, batch.samples[i], std::nullopt};
  if (partners) source.partner = batch.mix_samples[i];
  try {
    item.result =
        fill_slot(dataset, sized, seed, source, batch.pixels.data() + i * side * side * 3, memory);
    if (!item.result.fault.ok()) batch.weights[i] = 0.0f;
  } catch (...) {
    item.failure = std::current_exception();
  }
}

// What the items hold, in order of position. Rethrows the first failure.
MicroBatch Loader::Impl::finish(Job& job) const {
  MicroBatch& batch = job.batch;
  batch.label_offset.push_back(0);
  if (partners) batch.mix_label_offset.push_back(0);
  for (size_t i = 0; i < job.items.size(); ++i) {
    const Item& item = job.items[i];
    if (item.failure) std::rethrow_exception(item.failure);
    const SlotResult& slot = item.result;
    batch.labels.insert(batch.labels.end(), slot.labels.begin(), slot.labels.end());
    batch.label_offset.push_back(static_cast<uint32_t>(batch.labels.size()));
    if (partners) {
      batch.mix_labels.insert(batch.mix_labels.end(), slot.mix_labels.begin(),
                              slot.mix_labels.end());
      batch.mix_label_offset.push_back(static_cast<uint32_t>(batch.mix_labels.size()));
      batch.mix_ratio.push_back(slot.ratio);
    }
    if (!slot.fault.ok()) {
      batch.bad.push_back({batch.range.begin + i, batch.samples[i], slot.fault.reason});
    }
  }
  return std::move(batch);
}

std::shared_ptr<Job> Loader::Impl::job_with_work() const {
  for (const auto& job : in_flight) {
    if (job->taken < job->items.size()) return job;
  }
  return nullptr;
}

void Loader::Impl::schedule() {
  size_t have;
  {
    const std::lock_guard lock(mutex);
    have = in_flight.size();
  }
  for (; have < static_cast<size_t>(options.prefetch); ++have) {
    auto job = make_job(scheduled_k);
    if (!job) break;
    ++scheduled_k;
    {
      const std::lock_guard lock(mutex);
      in_flight.push_back(std::move(job));
    }
    work_ready.notify_all();
  }
}

// The sample that a thread will take `read_ahead` images from now: the system may fetch it while
// those are decoded. Under the lock.
std::optional<uint64_t> Loader::Impl::sample_ahead(const Job& job, size_t i) const {
  size_t k = i + static_cast<size_t>(options.read_ahead);
  bool here = false;
  for (const auto& other : in_flight) {
    here = here || other.get() == &job;
    if (!here) continue;
    if (k < other->items.size()) return other->batch.samples[k];
    k -= other->items.size();
  }
  return std::nullopt;
}

void Loader::Impl::work() {
  SlotMemory memory;
  std::unique_lock lock(mutex);
  for (;;) {
    std::shared_ptr<Job> job;
    work_ready.wait(lock, [&] { return stopping || (job = job_with_work()) != nullptr; });
    if (stopping) return;
    const size_t i = job->taken++;
    const auto ahead = options.read_ahead > 0 ? sample_ahead(*job, i) : std::nullopt;
    lock.unlock();
    if (ahead) dataset.will_need(*ahead);
    load_item(*job, i, memory);
    lock.lock();
    if (++job->done == job->items.size()) job_done.notify_all();
  }
}

// The oldest micro-batch once all its images are there; nullptr at the end of the plan.
std::shared_ptr<Job> Loader::Impl::wait_for_front() {
  std::unique_lock lock(mutex);
  if (in_flight.empty()) return nullptr;
  std::shared_ptr<Job> job = in_flight.front();
  if (job->done < job->items.size()) {
    const auto begin = Clock::now();
    job_done.wait(lock, [&] { return job->done == job->items.size(); });
    waited += std::chrono::duration<double>(Clock::now() - begin).count();
  }
  in_flight.pop_front();
  return job;
}

Loader::Loader(const ShardDataset& dataset, const Sampler& sampler, BatchPlan plan,
               const AugmentOptions& augment, uint64_t seed, const LoaderOptions& options)
    : impl_(std::make_unique<Impl>(dataset, sampler, std::move(plan), augment, seed, options)) {
  for (int t = 0; t < options.workers; ++t) {
    impl_->threads.emplace_back([impl = impl_.get()] { impl->work(); });
  }
}

Loader::~Loader() = default;

void Loader::seek(uint64_t k) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->in_flight.clear();
  }
  impl_->next_k = impl_->scheduled_k = k;
  if (impl_->options.workers > 0) impl_->schedule();
}

std::optional<MicroBatch> Loader::next() {
  Impl& impl = *impl_;
  std::shared_ptr<Job> job;
  if (impl.options.workers == 0) {
    job = impl.make_job(impl.next_k);
    if (!job) return std::nullopt;
    const auto begin = Impl::Clock::now();
    for (size_t i = 0; i < job->items.size(); ++i) impl.load_item(*job, i, impl.own_memory);
    impl.waited += std::chrono::duration<double>(Impl::Clock::now() - begin).count();
  } else {
    impl.schedule();
    job = impl.wait_for_front();
    if (!job) return std::nullopt;
    impl.schedule();  // its place is free: keep the threads busy while the caller works
  }
  try {
    MicroBatch batch = impl.finish(*job);
    ++impl.next_k;
    return batch;
  } catch (...) {
    seek(impl.next_k);
    throw;
  }
}

void Loader::recycle(MicroBatch&& used) {
  if (impl_->spare_pixels.size() <= static_cast<size_t>(impl_->options.prefetch)) {
    impl_->spare_pixels.push_back(std::move(used.pixels));
  }
}

double Loader::wait_seconds() const { return impl_->waited; }

}  // namespace nf::data

// See training_step.h.
#include "bench/training_step.h"

#include <ATen/core/grad_mode.h>

#include <chrono>

#include "core/check.h"
#include "core/error.h"
#include "core/rng.h"
#include "trainer/device_peak.h"
#include "trainer/flat_params.h"
#include "trainer/normalize.h"
#include "trainer/optim/loss.h"

namespace nf::bench {
namespace {

constexpr double kLearningRate = 0.01, kEmaDecay = 0.9999, kSmoothing = 0.1;

// Seconds since the last call, once the device is done.
class Lap {
 public:
  explicit Lap(at::Device device) : device_(device) { restart(); }
  void restart() { begin_ = Clock::now(); }
  double take() {
    train::synchronize(device_);
    const auto now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - begin_).count();
    begin_ = now;
    return seconds;
  }

 private:
  using Clock = std::chrono::steady_clock;
  at::Device device_;
  Clock::time_point begin_;
};

data::MicroBatch random_images(int64_t count, int64_t size, uint64_t number) {
  data::MicroBatch batch;
  batch.count = count;
  batch.image_size = size;
  batch.pixels.resize(static_cast<size_t>(count * size * size * 3));
  PositionRng rng(1, Stream::kTest, number);
  for (uint8_t& pixel : batch.pixels) pixel = static_cast<uint8_t>(rng.below(256));
  return batch;
}

at::Tensor random_labels(int64_t count, int64_t classes, uint64_t number) {
  at::Tensor labels = at::empty({count}, at::kLong);
  PositionRng rng(2, Stream::kTest, number);
  auto* const label = labels.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i)
    label[i] = static_cast<int64_t>(rng.below(static_cast<uint64_t>(classes)));
  return labels;
}

train::SgdOptions sgd_options() {
  train::SgdOptions o;
  o.momentum = 0.9;
  o.weight_decay = 2e-5;
  o.agc.clip = 0.01;
  return o;
}

std::vector<train::Param> initialized_params(model::Nfnet& net, const train::FlatLayout& layout,
                                             const at::Tensor& weights) {
  std::vector<train::Param> params = train::bind_params(net, layout, weights);
  net.init(1);
  return params;
}

}  // namespace

UpdatedNet::UpdatedNet(const model::NfnetSpec& spec, at::Device device)
    : net_(spec, at::kFloat, device),
      layout_(train::layout_of(net_)),
      weights_(layout_.make_arena(at::TensorOptions(at::kFloat).device(device))),
      params_(initialized_params(net_, layout_, weights_)),
      sgd_(params_, sgd_options()),
      ema_(params_, kEmaDecay) {
  if (!device.is_cpu()) sgd_.use_device(train::device_update(device));
}

void UpdatedNet::update(const at::Tensor& gradient, double scale, bool finite) {
  const train::StepStats stats = sgd_.step({.lr = kLearningRate,
                                            .gradient = gradient,
                                            .scale = scale,
                                            .finite = finite,
                                            .average = &ema_,
                                            .index = updates_});
  if (!stats.finite)
    throw Error(ExitCode::kNotFinite, "update " + std::to_string(updates_),
                "the gradient of " + stats.first_non_finite + " is not finite");
  ++updates_;
}

TrainingStep::TrainingStep(const model::NfnetSpec& spec, const StepShape& shape, at::Device device)
    : shape_(shape),
      device_(device),
      model_(spec, device),
      path_(train::make_gradient_path(device.is_cuda() ? "nccl" : "local", device, alone_,
                                      alone_.timeout_seconds())),
      reducer_(std::make_unique<train::GradReducer>(
          path_.nccl ? static_cast<train::Communicator&>(*path_.nccl) : alone_,
          static_cast<uint64_t>(shape.micro_batches), model_.layout().elements(),
          train::ReducerOptions{.ops = path_.ops.get()})),
      working_(model_.net(), shape.compute),
      backward_(working_, model_.layout()) {
  NF_CHECK(shape.batch % shape.micro_batches == 0);
  const int64_t count = shape.batch / shape.micro_batches;
  for (int64_t m = 0; m < shape.micro_batches; ++m) {
    const auto number = static_cast<uint64_t>(m);
    images_.push_back(random_images(count, shape.image_size, number));
    labels_.push_back(random_labels(count, spec.classes, number).to(device));
  }
}

at::Tensor TrainingStep::flat_tensor(std::span<const float> buffer) const {
  return at::from_blob(const_cast<float*>(buffer.data()), {static_cast<int64_t>(buffer.size())},
                       at::TensorOptions(at::kFloat).device(path_.device));
}

bool TrainingStep::forward_backward(const data::MicroBatch& images, const at::Tensor& labels,
                                    StepTimes& times) {
  const at::Tensor flat = flat_tensor(reducer_->buffer());
  model::ForwardOptions options;
  options.training = true;
  options.compute = shape_.compute;
  options.weights = &working_;
  options.recompute_blocks = shape_.recompute_blocks;
  Lap lap(device_);
  const at::Tensor input = shape_.nhwc && !device_.is_cpu()
                               ? train::normalized_pixels(train::pixels_of(images).to(device_),
                                                          at::MemoryFormat::ChannelsLast)
                               : train::normalized_images(images, device_);
  const at::Tensor logits = model_.net().forward(input, options);
  const train::LossResult loss =
      train::softmax_cross_entropy(logits, {.labels = labels, .weights = {}}, kSmoothing);
  times.forward += lap.take();
  const bool finite =
      backward_.run(loss.sum, flat, [&](size_t offset) { reducer_->ready_from(offset); });
  times.backward += lap.take();
  loss_ += loss.sum.item<double>() / static_cast<double>(shape_.batch);
  return finite;
}

StepTimes TrainingStep::run() {
  StepTimes times;
  loss_ = 0;
  {
    Lap lap(device_);
    working_.refresh();
    times.forward += lap.take();
  }
  for (size_t m = 0; m < images_.size(); ++m) {
    const bool finite = forward_backward(images_[m], labels_[m], times);
    reducer_->add(m, finite);
  }
  Lap lap(device_);
  const at::NoGradGuard no_grad;
  const std::span<const float> sum = reducer_->finish();
  model_.update(flat_tensor(sum), 1.0 / static_cast<double>(shape_.batch), reducer_->finite());
  reducer_->release();
  times.update = lap.take();
  return times;
}

}  // namespace nf::bench

// See build.h.
#include "trainer/build.h"

#include <ATen/core/grad_mode.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/error.h"
#include "trainer/agreement.h"
#include "trainer/checkpoint/export.h"
#include "trainer/flat_params.h"
#include "trainer/layer_rules.h"
#include "trainer/memory.h"
#include "trainer/model_metadata.h"

namespace nf::train {
namespace {

data::SamplerOptions sampler_options(const RunConfig& c, const data::ShardDataset& set) {
  data::SamplerOptions o;
  o.samples = set.size();
  o.seed = static_cast<uint64_t>(c.run.seed);
  o.shuffle = data::shuffle_from_string(c.data.shuffle, "data.shuffle");
  o.repeat = static_cast<uint64_t>(c.data.repeat_augmentation);
  o.shard_samples = set.shard_samples();
  o.window_shards = static_cast<uint64_t>(c.data.window_shards);
  return o;
}

data::TrainPlan train_plan(const RunConfig& c, const Communicator& comm,
                           const data::ShardDataset& set) {
  if (comm.size() > c.batch.micro_batches)
    throw Error(ExitCode::kUsage, "batch.micro_batches",
                std::to_string(comm.size()) + " ranks, but a batch has only " +
                    std::to_string(c.batch.micro_batches) + " micro-batches",
                "start at most that many ranks, or raise batch.micro_batches (this changes the "
                "run's bits)");
  data::TrainPlan p;
  p.batch_size = static_cast<uint64_t>(c.batch.size);
  p.micro_batches = static_cast<uint64_t>(c.batch.micro_batches);
  p.end_position = data::positions_in_run(c.schedule.epochs, set.size());
  p.sizes = size_stages(c.schedule, p.end_position);
  p.rank = static_cast<uint64_t>(comm.rank());
  p.world = static_cast<uint64_t>(comm.size());
  if (p.end_position == 0)
    throw Error(ExitCode::kUsage, "schedule.epochs", "the run has no samples",
                "raise schedule.epochs");
  return p;
}

Schedule make_schedule(const RunConfig& c, const data::TrainPlan& plan) {
  Schedule s;
  s.max_lr = c.optimizer.learning_rate;
  s.total_steps = static_cast<double>(plan.steps());
  const double per_epoch = static_cast<double>(plan.end_position) /
                           static_cast<double>(plan.batch_size) / c.schedule.epochs;
  s.warmup_steps = c.schedule.warmup_epochs >= 0 ? c.schedule.warmup_epochs * per_epoch
                                                 : std::min(5000.0, 0.05 * s.total_steps);
  return s;
}

SgdOptions sgd_options(const RunConfig& c) {
  SgdOptions o;
  o.momentum = c.optimizer.momentum;
  o.weight_decay = c.optimizer.weight_decay;
  o.agc.clip = c.optimizer.agc_clip;
  o.agc.eps = c.optimizer.agc_eps;
  return o;
}

data::ReadOptions read_options(const RunConfig& c) { return {.mapped = c.data.read == "mmap"}; }

std::unique_ptr<data::ShardDataset> open_eval_set(const RunConfig& c) {
  if (c.evaluate.split.empty()) return nullptr;
  return std::make_unique<data::ShardDataset>(c.data.path, c.evaluate.split, read_options(c));
}

std::vector<Param> make_params(const RunConfig& c, model::Nfnet& net, const FlatLayout& layout,
                               const at::Tensor& weights) {
  std::vector<Param> params = bind_params(net, layout, weights);
  apply_layer_rules(c.optimizer, net.spec(), params);
  return params;
}

// SAM moves each rank's weights on its own.
std::unique_ptr<SharedState> share_state(const RunConfig& c, Communicator& comm, at::Device device,
                                         const FlatLayout& layout) {
  if (comm.size() == 1 || !c.comm.shared_memory || !device.is_cpu() || c.sam.rho > 0)
    return nullptr;
  return SharedState::make(comm, layout);
}

at::ScalarType compute_type(const RunConfig& c) {
  return c.precision.compute == "bfloat16" ? at::kBFloat16 : at::kFloat;
}

int ranks_of_host(Communicator& comm) {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  const std::vector<std::string> hosts = gather_strings(comm, name);
  return static_cast<int>(std::count(hosts.begin(), hosts.end(), std::string(name)));
}

}  // namespace

Trainer::Trainer(const RunConfig& c, Communicator& communicator)
    : config(c),
      comm(communicator),
      device(resolve_device(c.run.device, communicator.rank())),
      train_set(c.data.path, c.data.split, read_options(c)),
      eval_set(open_eval_set(c)),
      sampler(sampler_options(c, train_set)),
      plan(train_plan(c, communicator, train_set)),
      net(model_spec(c.model, static_cast<int64_t>(train_set.class_names().size())), at::kFloat,
          device),
      layout(layout_of(net)),
      shared_state(share_state(c, communicator, device, layout)),
      weights(shared_state ? shared_state->weights()
                           : layout.make_arena(at::TensorOptions(at::kFloat).device(device))),
      sgd((params = make_params(c, net, layout, weights)), sgd_options(c),
          shared_state ? shared_state->momentum() : at::Tensor()),
      schedule(make_schedule(c, plan)),
      gradient_path(
          make_gradient_path(c.comm.backend, device, communicator, c.comm.timeout_seconds)),
      reducer(gradient_path.nccl ? *gradient_path.nccl : communicator, plan.micro_batches,
              layout.elements(),
              {.reduction = parse_reduction(c.comm.reduction),
               .ops = gradient_path.ops.get(),
               .shared_memory = c.comm.shared_memory}),
      working(net, compute_type(c)),
      backward(working, layout),
      sam(params, layout, weights,
          {.rho = c.sam.rho, .fraction = c.sam.fraction, .adaptive = c.sam.adaptive}) {
  const auto classes = static_cast<int64_t>(train_set.class_names().size());
  if (net.spec().classes < classes)
    throw Error(ExitCode::kUsage, "model.classes",
                std::to_string(net.spec().classes) + " outputs, but the data set has " +
                    std::to_string(classes) + " classes",
                "leave model.classes at 0 to take the data set's number");
  recompute_blocks =
      choose_recompute(c, net.spec(), comm.size(), ranks_of_host(comm), device.is_cpu());
  if (c.ema.decay > 0)
    ema = std::make_unique<Ema>(params, c.ema.decay,
                                shared_state ? shared_state->average() : at::Tensor());
  if (shared_state) sgd.use_share(shared_state->update_share());
  loader = std::make_unique<data::Loader>(
      train_set, sampler, plan.plan(), train_augment(c), static_cast<uint64_t>(c.run.seed),
      data::LoaderOptions{static_cast<int>(c.data.workers), static_cast<int>(c.data.prefetch)});
  feed = std::make_unique<ImageFeed>(*loader, device);
  if (!device.is_cpu()) sgd.use_device(device_update(device));
}

EvalOptions evaluation_options(const RunConfig& c) {
  EvalOptions o;
  o.preprocess =
      eval_augment(c.evaluate.image_size > 0 ? c.evaluate.image_size : final_image_size(c),
                   c.evaluate.resize_margin, c.data.interpolation);
  o.chunk = c.evaluate.chunk;
  o.workers = static_cast<int>(c.data.workers);
  o.loss_kind = c.loss.kind;
  return o;
}

uint64_t Trainer::position() const { return std::min(step * plan.batch_size, plan.end_position); }

double Trainer::epoch() const {
  return static_cast<double>(position()) / static_cast<double>(train_set.size());
}

void Trainer::seek(uint64_t to) {
  step = to;
  feed->seek(to * plan.per_step());
}

data::RunOrder Trainer::order() const {
  data::RunOrder o;
  o.sampler = sampler.options();
  o.batch_size = plan.batch_size;
  o.micro_batches = plan.micro_batches;
  o.end_position = plan.end_position;
  o.fingerprint = train_set.fingerprint();
  return o;
}

Snapshot take_snapshot(Trainer& t, SnapshotMemory memory) {
  const auto copy = [memory](const at::Tensor& x) {
    const at::Tensor host = x.detach().to(at::kCPU);
    return memory == SnapshotMemory::kView ? host : host.clone(at::MemoryFormat::Contiguous);
  };
  Snapshot s;
  s.state.step = t.step;
  s.state.position = t.position();
  s.state.seed = static_cast<uint64_t>(t.config.run.seed);
  s.state.fingerprint = t.train_set.fingerprint();
  s.state.config_hash = config_hash(t.config.fields());
  for (size_t i = 0; i < t.params.size(); ++i) {
    s.model.push_back({t.params[i].name, copy(t.params[i].value)});
    s.optimizer.push_back({t.params[i].name, copy(t.sgd.momentum()[i])});
    if (t.ema) s.ema.push_back({t.params[i].name, copy(t.ema->values()[i])});
  }
  s.model_metadata = describe_model(t.net.spec(), final_image_size(t.config));
  return s;
}

void restore(Trainer& t, const Snapshot& s) {
  at::NoGradGuard no_grad;
  const auto fill = [&](const std::vector<NamedTensor>& from, const char* what,
                        const auto& target) {
    if (from.size() != t.params.size())
      throw Error(ExitCode::kWeights, what,
                  "holds " + std::to_string(from.size()) + " tensors, the model has " +
                      std::to_string(t.params.size()));
    for (size_t i = 0; i < from.size(); ++i) {
      const auto found = std::find_if(from.begin(), from.end(), [&](const NamedTensor& n) {
        return n.name == t.params[i].name;
      });
      if (found == from.end() || found->tensor.sizes() != t.params[i].value.sizes())
        throw Error(ExitCode::kWeights, what,
                    "tensor " + t.params[i].name + " is missing or has another shape",
                    "the checkpoint is of another model; use another --output");
      target(i).copy_(found->tensor);
    }
  };
  fill(s.model, "model.safetensors", [&](size_t i) { return t.params[i].value.detach(); });
  fill(s.optimizer, "optimizer.safetensors", [&](size_t i) { return t.sgd.momentum()[i]; });
  if (t.ema) fill(s.ema, "ema.safetensors", [&](size_t i) { return t.ema->values()[i]; });
  t.seek(s.state.step);
}

model::Nfnet averaged_net(const Trainer& t) {
  NF_CHECK(t.ema, "a run without an average");
  model::Nfnet net(t.net.spec(), at::kFloat, t.device);
  for (size_t i = 0; i < t.params.size(); ++i) net.rebind(i, t.ema->values()[i]);
  return net;
}

void initialize_weights(Trainer& t) {
  if (t.shared_state && t.comm.rank() > 0) return t.seek(0);
  const auto seed = static_cast<uint64_t>(t.config.run.seed);
  t.net.init(seed);
  if (!t.config.init.weights.empty()) {
    const WeightsSource source = read_weights(
        t.config.init.weights, t.config.init.ema ? WeightsChoice::kEma : WeightsChoice::kRaw);
    std::vector<ExpectedTensor> expected;
    for (const auto& p : t.params) expected.push_back({p.name, p.value.sizes().vec()});
    FitOptions options;
    options.model = t.config.model.name;
    options.new_head = t.config.init.new_head;
    at::NoGradGuard no_grad;
    for (const auto& n : fit_weights(source, expected, options))
      for (auto& p : t.params)
        if (p.name == n.name) p.value.detach().copy_(n.tensor);
  }
  if (t.ema) t.ema->restart();
  t.seek(0);
}

}  // namespace nf::train

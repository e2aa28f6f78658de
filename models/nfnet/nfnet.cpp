// See nfnet.h.
#include "models/nfnet/nfnet.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "core/check.h"
#include "core/hash.h"
#include "core/rng.h"
#include "models/nfnet/block.h"
#include "models/nfnet/layers.h"
#include "models/nfnet/recompute.h"
#include "models/nfnet/to_device.h"
#include "models/nfnet/working_weights.h"

namespace nf::model {
namespace {

// Hands out what a forward pass reads, the parameters or the working weights, in the order of
// parameter_specs().
class ParameterReader {
 public:
  explicit ParameterReader(const std::vector<at::Tensor>& tensors) : tensors_(tensors) {}
  const at::Tensor& next() { return tensors_.at(next_++); }
  std::vector<at::Tensor> take(size_t count) {
    std::vector<at::Tensor> taken;
    for (; count > 0; --count) taken.push_back(next());
    return taken;
  }
  bool done() const { return next_ == tensors_.size(); }

 private:
  const std::vector<at::Tensor>& tensors_;
  size_t next_ = 0;
};

std::vector<at::Tensor> tensors_of(const std::vector<NamedParameter>& parameters) {
  std::vector<at::Tensor> tensors;
  for (const NamedParameter& p : parameters) tensors.push_back(p.tensor);
  return tensors;
}

// Standard deviation and truncation of the normal distribution that a role starts from, or a
// constant (section 3.1).
struct InitRule {
  double constant = 0, deviation = 0;
  bool truncated = false;  // redrawn beyond two deviations, not corrected for it
};

InitRule init_rule(const ParameterSpec& p, Flavour flavour) {
  const double fan_in = static_cast<double>(p.fan_in());
  switch (p.role) {
    case ParamRole::kConvWeight:
      return {0, 1 / std::sqrt(fan_in), false};
    case ParamRole::kLinearWeight:
      return {0, 1 / std::sqrt(fan_in), flavour == Flavour::kDm};
    case ParamRole::kClassifierWeight:
      return {0, 0.01, false};
    case ParamRole::kGain:
      return {1, 0, false};
    case ParamRole::kBias:
    case ParamRole::kClassifierBias:
    case ParamRole::kSkipGain:
      return {0, 0, false};
  }
  NF_CHECK(false, "unknown role");
}

double draw(PositionRng& rng, const InitRule& rule) {
  double z = rng.normal();
  while (rule.truncated && std::abs(z) > 2.0) z = rng.normal();
  return rule.deviation * z;
}

}  // namespace

Nfnet::Nfnet(const NfnetSpec& spec, at::ScalarType parameter_type, at::Device device)
    : spec_(spec),
      blocks_(block_specs(spec)),
      device_(device),
      parameter_specs_(nf::model::parameter_specs(spec)) {
  NF_CHECK(parameter_type == at::kFloat || parameter_type == at::kDouble);
  for (const ParameterSpec& p : parameter_specs_) {
    at::Tensor tensor = at::zeros(p.shape, at::TensorOptions(parameter_type).device(device));
    tensor.set_requires_grad(true);
    parameters_.push_back({p.name, std::move(tensor), p.role});
  }
}

void Nfnet::init(uint64_t seed) {
  for (size_t i = 0; i < parameters_.size(); ++i) init_parameter(i, seed);
}

void Nfnet::init_head(uint64_t seed) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const ParamRole role = parameters_[i].role;
    if (role == ParamRole::kClassifierWeight || role == ParamRole::kClassifierBias) {
      init_parameter(i, seed);
    }
  }
}

void Nfnet::init_parameter(size_t index, uint64_t seed) {
  const ParameterSpec& p = parameter_specs_[index];
  const InitRule rule = init_rule(p, spec_.flavour);
  at::Tensor values = at::full(p.shape, rule.constant, at::kDouble);
  if (rule.deviation > 0) {
    // A generator for each output: threads may share the work, the numbers stay.
    const uint64_t key = derive_key(seed, xxh3_64(as_bytes(p.name)), Stream::kInit);
    const int64_t n = p.fan_in();
    double* const out = values.mutable_data_ptr<double>();
    at::parallel_for(0, p.shape[0], std::max<int64_t>(1, 4096 / n),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t row = begin; row < end; ++row) {
                         PositionRng rng(key, Stream::kInit, static_cast<uint64_t>(row));
                         for (int64_t i = 0; i < n; ++i) out[row * n + i] = draw(rng, rule);
                       }
                     });
  }
  const at::NoGradGuard no_grad;
  parameters_[index].tensor.copy_(values);
}

void Nfnet::rebind(size_t index, const at::Tensor& storage) {
  NamedParameter& p = parameters_.at(index);
  NF_CHECK(storage.sizes() == p.tensor.sizes(), p.name);
  NF_CHECK(storage.scalar_type() == p.tensor.scalar_type() && storage.device() == device_, p.name);
  p.tensor = storage.detach();
  p.tensor.set_requires_grad(true);
}

at::Tensor Nfnet::forward(const at::Tensor& images, const ForwardOptions& options,
                          Activations* taps) const {
  NF_CHECK(images.dim() == 4 && images.size(1) == 3, "images must be [B, 3, H, W]");
  const auto batch = images.size(0);
  const auto tap = [taps](const char* name, const at::Tensor& t) {
    if (taps) taps->taps.emplace_back(name, t);
  };
  const Flavour flavour = spec_.flavour;
  const bool standardized = options.weights != nullptr;
  NF_CHECK(!standardized || options.weights->type() == options.compute);
  const std::vector<at::Tensor> tensors =
      standardized ? options.weights->tensors() : tensors_of(parameters_);
  ParameterReader reader(tensors);
  const bool recompute = options.recompute_blocks && at::GradMode::is_enabled();
  const auto run = [recompute](const at::Tensor& in, const std::vector<at::Tensor>& parameters,
                               const Part& part) {
    return recompute ? recomputed(in, parameters, part) : part(in, parameters);
  };

  at::Tensor x = images.to(device_, options.compute);
  // The images' layout carries through the network. oneDNN's convolutions and the pooling are up to
  // twice as fast on NHWC.
  if (device_.is_cpu()) x = x.contiguous(at::MemoryFormat::ChannelsLast);
  x = run(x, reader.take((standardized ? 2 : 3) * spec_.stem_strides.size()),
          [strides = spec_.stem_strides, flavour, standardized](at::Tensor in,
                                                                std::span<const at::Tensor> p) {
            for (size_t i = 0, at = 0; i < strides.size(); ++i) {
              ConvParameters conv{.weight = p[at], .bias = p[at + 1], .gain = {}};
              at += 2;
              if (!standardized) conv.gain = p[at++];
              conv.scale = i > 0 ? kGammaGelu : 1.0;
              in = i > 0 ? gelu_ws_conv(in, conv, strides[i], 1, flavour)
                         : ws_conv(in, conv, strides[i], 1, flavour);
            }
            return in;
          });
  tap("stem", x);

  const at::Tensor keep = residual_masks(batch, options);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const at::Tensor keep_block = keep.defined() ? keep[static_cast<int64_t>(i)] : at::Tensor();
    x = run(x, reader.take(block_tensors(blocks_[i], standardized)),
            [block = blocks_[i], spec = spec_, keep_block, standardized](
                const at::Tensor& in, std::span<const at::Tensor> p) {
              return block_forward(in, block, block_parameters(block, p, standardized), spec,
                                   keep_block);
            });
    if (i + 1 == blocks_.size() || blocks_[i + 1].stage != blocks_[i].stage) {
      tap(("stages." + std::to_string(blocks_[i].stage)).c_str(), x);
    }
  }

  ConvParameters last{.weight = reader.next(), .bias = reader.next(), .gain = {}};
  if (!standardized) last.gain = reader.next();
  x = ws_conv(x, last, 1, 1, flavour);
  tap("final_conv", x);
  x = gelu(x, flavour).mean({2, 3}) * kGammaGelu;
  tap("pool", x);
  if (options.training && options.dropout > 0) {
    NF_CHECK(static_cast<int64_t>(options.positions.size()) == batch);
    x = x * dropout_mask(options.dropout, x.size(1), options.seed, options.positions).to(x);
  }
  const at::Tensor weight = reader.next().to(options.compute);
  const at::Tensor bias = reader.next().to(options.compute);
  NF_CHECK(reader.done());
  x = at::linear(x, weight, bias);
  return options.compute == at::kDouble ? x : x.to(at::kFloat);
}

at::Tensor Nfnet::residual_masks(int64_t batch, const ForwardOptions& options) const {
  if (!options.training || (!options.masks && options.stochastic_depth <= 0)) return {};
  const auto blocks = static_cast<int64_t>(blocks_.size());
  std::vector<std::vector<float>> drawn;
  if (!options.masks) {
    NF_CHECK(static_cast<int64_t>(options.positions.size()) == batch);
    drawn =
        stochastic_depth_masks(options.stochastic_depth, blocks, options.seed, options.positions);
  }
  const std::vector<std::vector<float>>& masks = options.masks ? *options.masks : drawn;
  NF_CHECK(static_cast<int64_t>(masks.size()) == blocks);
  at::Tensor keep = at::empty({blocks, batch, 1, 1, 1}, at::kFloat);
  float* out = keep.mutable_data_ptr<float>();
  for (const std::vector<float>& mask : masks) {
    NF_CHECK(static_cast<int64_t>(mask.size()) == batch);
    out = std::copy(mask.begin(), mask.end(), out);
  }
  return to_device(keep.to(options.compute), device_);
}

}  // namespace nf::model

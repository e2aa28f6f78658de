// The network beyond its golden numbers: initialization, low precision, masks by position, replaced
// storage, repeatability.
#include "models/nfnet/nfnet.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "core/error.h"
#include "models/nfnet/cost.h"
#include "tests/support/tiny_net.h"

namespace nf::test {
namespace {

using model::Flavour;
using model::ForwardOptions;
using model::Nfnet;

const at::Tensor& parameter(const Nfnet& net, const std::string& name) {
  for (const auto& p : net.parameters()) {
    if (p.name == name) return p.tensor;
  }
  throw std::out_of_range(name);
}

double deviation(const at::Tensor& t) {
  return std::sqrt(t.detach().to(at::kDouble).square().mean().item<double>());
}

std::vector<at::Tensor> loss_and_gradients(const Nfnet& net, const at::Tensor& images,
                                           const ForwardOptions& options) {
  const at::Tensor loss = golden_loss(net.forward(images, options), 0.1);
  std::vector<at::Tensor> leaves;
  for (const auto& p : net.parameters()) leaves.push_back(p.tensor);
  std::vector<at::Tensor> results = torch::autograd::grad({loss}, leaves);
  results.push_back(loss.detach());
  return results;
}

TEST(Init, StatisticsByRole) {
  Nfnet net(model::nfnet_spec("nfnet_mini"));
  net.init(7);
  for (const auto& p : net.parameters()) {
    const auto n = static_cast<double>(p.tensor.numel());
    const double fan_in = n / static_cast<double>(p.tensor.dim() > 0 ? p.tensor.size(0) : 1);
    const double slack = 5 / std::sqrt(2 * n);  // five standard errors of a deviation
    const double sd = deviation(p.tensor);
    switch (p.role) {
      case ParamRole::kConvWeight:
        EXPECT_NEAR(sd * std::sqrt(fan_in), 1, slack) << p.name;
        break;
      case ParamRole::kLinearWeight:  // truncated at two deviations, not corrected
        EXPECT_NEAR(sd * std::sqrt(fan_in), 0.8796, slack) << p.name;
        EXPECT_LE(p.tensor.abs().max().item<double>() * std::sqrt(fan_in), 2 + 1e-6) << p.name;
        break;
      case ParamRole::kClassifierWeight:
        EXPECT_NEAR(sd, 0.01, 0.01 * slack) << p.name;
        break;
      case ParamRole::kGain:
        EXPECT_TRUE(p.tensor.eq(1).all().item<bool>()) << p.name;
        break;
      default:
        EXPECT_TRUE(p.tensor.eq(0).all().item<bool>()) << p.name;
    }
  }
}

TEST(Init, TimmFlavourDoesNotTruncate) {
  model::NfnetSpec spec = model::nfnet_spec("nfnet_mini");
  spec.flavour = Flavour::kTimm;
  Nfnet net(spec);
  net.init(7);
  const at::Tensor& w = parameter(net, "stages.3.0.attn_last.fc1.weight");
  const double fan_in = 512;
  EXPECT_NEAR(deviation(w) * std::sqrt(fan_in), 1, 0.01);
  EXPECT_GT(w.abs().max().item<double>() * std::sqrt(fan_in), 3);
}

TEST(Init, DependsOnSeedAndNameAlone) {
  const model::NfnetSpec spec = model::nfnet_spec("nfnet_nano");
  Nfnet a(spec), b(spec), other(spec), precise(spec, at::kDouble);
  a.init(3);
  const int threads = at::get_num_threads();
  at::set_num_threads(3);
  b.init(4);
  b.init(3);
  at::set_num_threads(threads);
  other.init(4);
  precise.init(3);
  model::NfnetSpec deeper = spec;
  deeper.depths.back() += 1;
  Nfnet deep(deeper);
  deep.init(3);
  for (size_t i = 0; i < a.parameters().size(); ++i) {
    const auto& p = a.parameters()[i];
    EXPECT_TRUE(same_bits(p.tensor, b.parameters()[i].tensor)) << p.name;
    EXPECT_TRUE(same_bits(p.tensor, precise.parameters()[i].tensor.to(at::kFloat))) << p.name;
    EXPECT_TRUE(same_bits(p.tensor, parameter(deep, p.name))) << p.name;
    if (p.role == ParamRole::kConvWeight) {
      EXPECT_FALSE(same_bits(p.tensor, other.parameters()[i].tensor)) << p.name;
    }
  }
}

TEST(Init, HeadAlone) {
  Nfnet net(model::nfnet_spec("nfnet_pico")), fresh(model::nfnet_spec("nfnet_pico"));
  net.init(1);
  fresh.init(2);
  const at::Tensor stem = parameter(net, "stem.conv1.weight").detach().clone();
  net.init_head(2);
  EXPECT_TRUE(same_bits(parameter(net, "stem.conv1.weight"), stem));
  EXPECT_TRUE(same_bits(parameter(net, "head.fc.weight"), parameter(fresh, "head.fc.weight")));
}

TEST(Init, SignalNeitherDiesOutNorExplodes) {
  Nfnet net(model::nfnet_spec("nfnet_nano"));
  net.init(5);
  const uint64_t seed = fnv1a64("noise");
  std::vector<double> noise(4 * 3 * 32 * 32);  // uniform, variance 1
  for (size_t i = 0; i < noise.size(); ++i) noise[i] = std::sqrt(3.0) * v_seeded(seed, i);
  model::Activations taps;
  const at::NoGradGuard no_grad;
  net.forward(tensor_of(noise, {4, 3, 32, 32}, at::kFloat), {}, &taps);
  for (const auto& [name, t] : taps.taps) {
    if (name == "pool") continue;          // a mean over pixels is smaller by its nature
    EXPECT_GT(deviation(t), 0.1) << name;  // each average pool of noise halves it
    EXPECT_LT(deviation(t), 2) << name;
  }
}

void expect_near_float32(const Nfnet& net) {
  const at::Tensor images = golden_image_tensor({3, 3, 64, 64}, at::kFloat);
  ForwardOptions low;
  low.compute = at::kBFloat16;
  const std::vector<at::Tensor> want = loss_and_gradients(net, images, {});
  const std::vector<at::Tensor> got = loss_and_gradients(net, images, low);
  const at::Tensor logits = net.forward(images, low);
  EXPECT_EQ(logits.scalar_type(), at::kFloat);
  const at::Tensor exact = net.forward(images, {});
  EXPECT_LT(((logits - exact).norm() / exact.norm()).item<double>(), 0.01);
  double dot = 0, a = 0, b = 0;
  for (size_t i = 0; i + 1 < got.size(); ++i) {
    ASSERT_EQ(got[i].scalar_type(), at::kFloat);
    dot += (got[i] * want[i]).sum().item<double>();
    a += got[i].square().sum().item<double>();
    b += want[i].square().sum().item<double>();
  }
  EXPECT_GT(dot / std::sqrt(a * b), 0.9999);
  EXPECT_NEAR(std::sqrt(a / b), 1, 0.01);
}

TEST(BFloat16, NearFloat32) { expect_near_float32(golden_tiny(at::kFloat)); }

TEST(BFloat16, WideGroupsNearFloat32) {  // wide enough for winograd.h
  model::NfnetSpec spec = tiny_spec();
  spec.widths = {64, 128, 192, 192};
  spec.stem_channels = {2, 4, 32, 32};
  spec.group_width = 32;
  Nfnet net(spec);
  fill_golden(net);
  expect_near_float32(net);
}

TEST(Forward, SameBitsEveryTime) {
  Nfnet net(model::nfnet_spec("nfnet_nano"));
  net.init(5);
  const at::Tensor images = golden_image_tensor({4, 3, 32, 32}, at::kFloat);
  const std::vector<uint64_t> positions = {10, 11, 12, 13};
  ForwardOptions options;
  options.training = true;
  options.dropout = 0.2;
  options.stochastic_depth = 0.25;
  options.seed = 9;
  options.positions = positions;
  const int threads_before = at::get_num_threads();
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    const std::vector<at::Tensor> first = loss_and_gradients(net, images, options);
    const std::vector<at::Tensor> second = loss_and_gradients(net, images, options);
    for (size_t i = 0; i < first.size(); ++i) {
      EXPECT_TRUE(same_bits(first[i], second[i])) << i << ", " << threads << " threads";
    }
  }
  at::set_num_threads(threads_before);
}

TEST(Forward, MasksGoByPosition) {
  const Nfnet net = golden_tiny(at::kDouble);
  const at::Tensor image = golden_image_tensor({1, 3, 64, 64}, at::kDouble);
  const at::Tensor images = image.expand({3, 3, 64, 64});
  const std::vector<uint64_t> positions = {40, 41, 40};
  ForwardOptions options;
  options.training = true;
  options.compute = at::kDouble;
  options.dropout = 0.5;
  options.stochastic_depth = 0.9;
  options.seed = 1;
  options.positions = positions;
  const at::NoGradGuard no_grad;
  const at::Tensor logits = net.forward(images, options);
  EXPECT_TRUE(at::allclose(logits[0], logits[2], 1e-12, 1e-14));
  EXPECT_FALSE(at::allclose(logits[0], logits[1], 1e-3, 1e-3));
  options.training = false;  // evaluation ignores rates and positions
  options.positions = {};
  EXPECT_TRUE(same_bits(net.forward(images, options), net.forward(images, [] {
    ForwardOptions plain;
    plain.compute = at::kDouble;
    return plain;
  }())));
}

TEST(Forward, TwoPositionsAreRequiredForTwoImages) {
  const Nfnet net = golden_tiny(at::kFloat);
  const std::vector<uint64_t> one = {1};
  ForwardOptions options;
  options.training = true;
  options.stochastic_depth = 0.1;
  options.positions = one;
  EXPECT_THROW(net.forward(golden_image_tensor({2, 3, 64, 64}, at::kFloat), options),
               std::logic_error);
}

TEST(Forward, RunsWithoutAGraphWhereGradientsAreOff) {
  const Nfnet net = golden_tiny(at::kFloat);
  const at::Tensor images = golden_image_tensor({1, 3, 32, 32}, at::kFloat);
  EXPECT_TRUE(net.forward(images, {}).requires_grad());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(net.forward(images, {}).requires_grad());
}

TEST(Rebind, ParametersMayLiveInOneArena) {
  Nfnet net = golden_tiny(at::kFloat);
  const at::Tensor images = golden_image_tensor({2, 3, 64, 64}, at::kFloat);
  const std::vector<at::Tensor> before = loss_and_gradients(net, images, {});
  at::Tensor arena = at::zeros({model::model_cost(net.spec()).parameters}, at::kFloat);
  int64_t offset = 0;
  for (size_t i = 0; i < net.parameters().size(); ++i) {
    const at::Tensor old = net.parameters()[i].tensor.detach();
    const at::Tensor view = arena.narrow(0, offset, old.numel()).view(old.sizes());
    view.copy_(old);
    net.rebind(i, view);
    offset += old.numel();
    EXPECT_TRUE(net.parameters()[i].tensor.is_leaf());
    EXPECT_TRUE(net.parameters()[i].tensor.requires_grad());
  }
  EXPECT_EQ(offset, arena.numel());
  const std::vector<at::Tensor> after = loss_and_gradients(net, images, {});
  for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(same_bits(before[i], after[i])) << i;
  arena.zero_();  // the network reads the arena
  const at::NoGradGuard no_grad;
  EXPECT_EQ(net.forward(images, {}).abs().max().item<float>(), 0);
  EXPECT_THROW(net.rebind(0, at::zeros({1})), std::logic_error);
}

TEST(Forward, EveryVariantOfTheSmallFamilyTakesItsSizes) {
  for (const char* name : {"nfnet_pico", "nfnet_nano", "nfnet_micro", "nfnet_mini"}) {
    Nfnet net(model::nfnet_spec(name));
    net.init(1);
    const at::NoGradGuard no_grad;
    for (const int64_t size : {32, 33, 64}) {
      const at::Tensor images = golden_image_tensor({1, 3, size, size}, at::kFloat);
      const at::Tensor logits = net.forward(images, {});
      EXPECT_TRUE(at::isfinite(logits).all().item<bool>()) << name << " " << size;
    }
  }
}

TEST(Nfnet, ImpossibleSpecIsAUserError) {
  model::NfnetSpec spec = model::nfnet_spec("nfnet_pico");
  spec.classes = -1;
  EXPECT_THROW(Nfnet{spec}, Error);
}

}  // namespace
}  // namespace nf::test

// Five optimizer steps of the tiny network on one batch, in float64 and float32, against golden
// values: network, loss, AGC, decay, momentum and update together (tests/golden/nfnet/README.md,
// tiny_sgd_agc.json).
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "models/nfnet/nfnet.h"
#include "tests/support/golden_values.h"
#include "tests/support/tiny_net.h"
#include "trainer/optim/loss.h"
#include "trainer/optim/sgd.h"

namespace nf::train {
namespace {

using nlohmann::json;

struct Tolerance {
  double relative, floor;
};

void expect_near(double value, const json& golden, Tolerance t, const std::string& where) {
  EXPECT_TRUE(test::golden_near(value, golden.get<double>(), t.relative, t.floor))
      << where << ": " << value << " instead of " << golden;
}

void expect_statistics(const test::GoldenStatistics& s, const json& golden, Tolerance t,
                       const std::string& where) {
  expect_near(s.sum, golden.at("sum"), t, where + " sum");
  expect_near(s.sumsq, golden.at("sumsq"), t, where + " sumsq");
  expect_near(s.dot, golden.at("dot"), t, where + " dot");
}

// Sums of the three statistics over all tensors.
test::GoldenStatistics total(const std::vector<at::Tensor>& tensors) {
  test::GoldenStatistics out;
  for (const at::Tensor& t : tensors) {
    const std::vector<double> values = test::doubles_of(t);
    const auto s = test::golden_statistics(values.data(), values.size());
    out.sum += s.sum;
    out.sumsq += s.sumsq;
    out.dot += s.dot;
  }
  return out;
}

class Trace {
 public:
  Trace(const json& golden, at::ScalarType type) : net_(test::tiny_spec(), type) {
    const at::NoGradGuard no_grad;
    for (const auto& p : net_.parameters()) {
      const std::vector<int64_t> shape = p.tensor.sizes().vec();
      p.tensor.copy_(test::tensor_of(test::golden_parameter(p.name, shape), shape, type));
      leaves_.push_back(p.tensor);
      params_.push_back(
          {.name = p.name, .value = p.tensor, .grad = at::zeros_like(p.tensor), .role = p.role});
    }
    sgd_.emplace(params_,
                 SgdOptions{.momentum = golden.at("momentum"),
                            .weight_decay = golden.at("weight_decay"),
                            .nesterov = golden.at("nesterov"),
                            .agc = {.clip = golden.at("clipping"), .eps = golden.at("eps")}});
    const int64_t batch = golden.at("batch"), size = golden.at("hw");
    images_ = test::tensor_of(test::golden_images(batch, size, size), {batch, 3, size, size}, type);
    labels_ = at::tensor(test::golden_labels(batch, 10), at::kLong);
    smoothing_ = golden.at("smoothing");
    options_.training = true;
    options_.compute = type;
  }

  // Mean loss at the present weights; fills the gradients.
  double backward() {
    const at::Tensor logits = net_.forward(images_, options_);
    const at::Tensor loss =
        softmax_cross_entropy(logits, {labels_, {}, {}, {}}, smoothing_).sum / labels_.size(0);
    correct_ = count_correct(logits.detach(), labels_, {}).top1.item<int64_t>();
    const auto grads = torch::autograd::grad({loss}, leaves_);
    for (size_t i = 0; i < grads.size(); ++i) params_[i].grad.copy_(grads[i]);
    return loss.item<double>();
  }

  const Param& param(const std::string& name) const {
    for (const Param& p : params_)
      if (p.name == name) return p;
    throw std::out_of_range(name);
  }
  std::vector<at::Tensor> values() const { return leaves_; }
  Sgd& sgd() { return *sgd_; }
  int64_t correct() const { return correct_; }

 private:
  model::Nfnet net_;
  std::vector<Param> params_;
  std::vector<at::Tensor> leaves_;
  std::optional<Sgd> sgd_;
  at::Tensor images_, labels_;
  double smoothing_ = 0;
  int64_t correct_ = 0;
  model::ForwardOptions options_;
};

void expect_probe(const Trace& trace, const json& probe, Tolerance t, const std::string& where) {
  for (const auto& [name, values] : probe.items()) {
    const std::vector<double> actual = test::doubles_of(trace.param(name).value);
    for (size_t i = 0; i < values.size(); ++i)
      expect_near(actual.at(i), values[i], t, where + " " + name);
  }
}

void expect_final(const Trace& trace, const json& golden, Tolerance t) {
  EXPECT_EQ(golden.size(), 131u);
  for (const auto& [name, g] : golden.items()) {
    const std::vector<double> values = test::doubles_of(trace.param(name).value);
    expect_statistics(test::golden_statistics(values.data(), values.size()), g, t, name);
    for (size_t i = 0; i < g.at("first").size(); ++i)
      expect_near(values.at(i), g.at("first")[i], t, name);
    for (size_t i = 0; i < g.at("last").size(); ++i)
      expect_near(values.at(values.size() - g.at("last").size() + i), g.at("last")[i], t, name);
  }
}

void run_float64(const json& golden) {
  const Tolerance near{1e-9, 1e-11};
  Trace trace(golden, at::kDouble);
  ASSERT_EQ(golden.at("steps").size(), 5u);
  for (const json& step : golden.at("steps")) {
    const std::string where = "step " + step.at("step").dump();
    expect_near(trace.backward(), step.at("loss"), near, where + " loss");
    EXPECT_EQ(trace.correct(), step.at("correct").get<int64_t>()) << where;
    const StepStats stats = trace.sgd().step(step.at("lr"));
    EXPECT_TRUE(stats.finite);
    expect_near(stats.grad_norm, step.at("grad_norm"), near, where + " grad_norm");
    EXPECT_EQ(stats.units, step.at("units_total").get<int64_t>());
    expect_near(stats.grad_norm_after_agc, step.at("grad_norm_after_agc"), near,
                where + " after AGC");
    EXPECT_EQ(stats.clipped, step.at("units_clipped").get<int64_t>());
    expect_statistics(total(trace.values()), step.at("params"), near, where + " params");
    expect_statistics(total(trace.sgd().momentum()), step.at("momentum"), near,
                      where + " momentum");
    expect_probe(trace, step.at("probe"), near, where);
  }
  expect_near(trace.backward(), golden.at("loss_after"), near, "loss after");
  expect_final(trace, golden.at("final_params"), near);
}

// In float32 a unit whose norm sits at its threshold may fall on either side: counts are not
// compared.
void run_float32(const json& golden) {
  Trace trace(golden, at::kFloat);
  const json& single = golden.at("float32");
  for (size_t i = 0; i < single.at("losses").size(); ++i) {
    const std::string where = "step " + std::to_string(i);
    expect_near(trace.backward(), single.at("losses")[i], {1e-5, 0}, where + " loss");
    const json& step = golden.at("steps")[i];
    const StepStats stats = trace.sgd().step(step.at("lr"));
    expect_near(stats.grad_norm, step.at("grad_norm"), {1e-4, 0}, where + " grad_norm");
    const double sumsq = total(trace.values()).sumsq;
    expect_near(sumsq, single.at("param_sumsq")[i], {1e-5, 0}, where + " params");
    expect_near(sumsq, step.at("params").at("sumsq"), {1e-5, 0}, where + " params");
    expect_probe(trace, step.at("probe"), {1e-4, 1e-6}, where);
  }
  expect_near(trace.backward(), single.at("loss_after"), {1e-5, 0}, "loss after");
}

TEST(GoldenSteps, Float64Standard) {
  run_float64(test::golden_json("tiny_sgd_agc.json").at("standard"));
}

TEST(GoldenSteps, Float64LargeWeightDecay) {
  run_float64(test::golden_json("tiny_sgd_agc.json").at("large_weight_decay"));
}

TEST(GoldenSteps, Float32Standard) {
  run_float32(test::golden_json("tiny_sgd_agc.json").at("standard"));
}

TEST(GoldenSteps, Float32LargeWeightDecay) {
  run_float32(test::golden_json("tiny_sgd_agc.json").at("large_weight_decay"));
}

}  // namespace
}  // namespace nf::train

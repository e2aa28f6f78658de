// Every golden number of the network: forward in both flavours and at odd sizes, each gradient,
// stochastic depth.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/support/tiny_net.h"

namespace nf::test {
namespace {

using model::Activations;
using model::Flavour;
using model::ForwardOptions;
using model::Nfnet;

// gathered: allowed error of sums over a tensor, relative to the root of its sum of squares (the
// sum itself may cancel).
struct Tolerance {
  double relative, floor, gathered;
};
constexpr Tolerance kDoubleTolerance{1e-9, 1e-11, 0};
constexpr Tolerance kFloatTolerance{2e-5, 5e-6, 2e-5};  // float32 against another float32 program

Flavour flavour_of(const nlohmann::json& j) {
  return model::parse_flavour(j.at("flavour").get<std::string>());
}

void expect_near(double got, const nlohmann::json& want, Tolerance t, const std::string& what) {
  const auto w = want.get<double>();
  EXPECT_TRUE(golden_near(got, w, t.relative, t.floor)) << what << ": " << got << ", golden " << w;
}

void expect_statistics(const at::Tensor& tensor, const nlohmann::json& want, Tolerance t,
                       const std::string& what) {
  ASSERT_EQ(tensor.sizes().vec(), want.at("shape").get<std::vector<int64_t>>()) << what;
  const std::vector<double> values = doubles_of(tensor);
  const GoldenStatistics s = golden_statistics(values.data(), values.size());
  const Tolerance sums{t.relative, t.floor + t.gathered * std::sqrt(s.sumsq), 0};
  expect_near(s.sum, want.at("sum"), sums, what + " sum");
  expect_near(s.sumsq, want.at("sumsq"), sums, what + " sumsq");
  expect_near(s.dot, want.at("dot"), sums, what + " dot");
  const nlohmann::json &first = want.at("first"), &last = want.at("last");
  for (size_t i = 0; i < first.size(); ++i) {
    expect_near(values.at(i), first[i], t, what + " first " + std::to_string(i));
  }
  for (size_t i = 0; i < last.size(); ++i) {
    expect_near(values.at(values.size() - last.size() + i), last[i], t,
                what + " last " + std::to_string(i));
  }
}

void check_forward(const nlohmann::json& golden_case, at::ScalarType type, Tolerance tolerance) {
  const Nfnet net = golden_tiny(type, flavour_of(golden_case));
  const auto shape = golden_case.at("input_shape").get<std::vector<int64_t>>();
  const nlohmann::json& want = golden_case.at(type == at::kDouble ? "float64" : "float32");
  ForwardOptions options;
  options.compute = type;
  Activations taps;
  const at::NoGradGuard no_grad;
  const at::Tensor logits = net.forward(golden_image_tensor(shape, type), options, &taps);
  ASSERT_EQ(logits.scalar_type(), type);
  ASSERT_EQ(taps.taps.size(), 7U);
  for (const auto& [name, tensor] : taps.taps) {
    expect_statistics(tensor, want.at(name), tolerance, name);
  }
  expect_statistics(logits, want.at("logits"), tolerance, "logits");
  const std::vector<double> values = doubles_of(logits);
  std::vector<double> all;
  for (const auto& row : want.at("logits").at("values")) {
    if (row.is_array()) {
      for (const auto& v : row) all.push_back(v.get<double>());
    } else {
      all.push_back(row.get<double>());
    }
  }
  ASSERT_EQ(all.size(), values.size());
  for (size_t i = 0; i < all.size(); ++i) {
    expect_near(values[i], all[i], tolerance, "logit " + std::to_string(i));
  }
  expect_near(golden_loss(logits, 0.1).item<double>(), want.at("loss_smoothing_0.1"), tolerance,
              "smoothed loss");
  expect_near(golden_loss(logits, 0).item<double>(), want.at("loss_smoothing_0"), tolerance,
              "loss");
}

TEST(GoldenForward, Float64) {
  const nlohmann::json golden = golden_json("tiny_forward.json");
  ASSERT_EQ(golden.at("cases").size(), 4U);
  for (const auto& c : golden.at("cases")) {
    SCOPED_TRACE(c.at("flavour").get<std::string>() + " " + c.at("input_shape").dump());
    check_forward(c, at::kDouble, kDoubleTolerance);
  }
}

TEST(GoldenForward, Float32) {
  const nlohmann::json golden = golden_json("tiny_forward.json");
  for (const auto& c : golden.at("cases")) {
    SCOPED_TRACE(c.at("flavour").get<std::string>() + " " + c.at("input_shape").dump());
    check_forward(c, at::kFloat, kFloatTolerance);
  }
}

TEST(GoldenGradients, EveryParameter) {
  const nlohmann::json golden = golden_json("tiny_forward.json");
  ASSERT_EQ(golden.at("grads").size(), 2U);
  for (const auto& g : golden.at("grads")) {
    SCOPED_TRACE(g.at("flavour").get<std::string>());
    const Nfnet net = golden_tiny(at::kDouble, flavour_of(g));
    const auto batch = g.at("batch").get<int64_t>(), hw = g.at("hw").get<int64_t>();
    ForwardOptions options;
    options.compute = at::kDouble;
    const at::Tensor logits =
        net.forward(golden_image_tensor({batch, 3, hw, hw}, at::kDouble), options);
    const at::Tensor loss = golden_loss(logits, 0.1);
    expect_near(loss.item<double>(), g.at("loss"), kDoubleTolerance, "loss");
    torch::autograd::backward({loss}, {});
    ASSERT_EQ(g.at("grads").size(), net.parameters().size());
    double squares = 0;
    for (const model::NamedParameter& p : net.parameters()) {
      ASSERT_TRUE(p.tensor.grad().defined()) << p.name;
      expect_statistics(p.tensor.grad(), g.at("grads").at(p.name), kDoubleTolerance, p.name);
      squares += p.tensor.grad().square().sum().item<double>();
    }
    expect_near(std::sqrt(squares), g.at("grad_norm"), kDoubleTolerance, "norm");
  }
}

TEST(GoldenStochasticDepth, GivenMasksWithoutRescaling) {
  const nlohmann::json golden = golden_json("stochastic_depth.json");
  const auto masks = golden.at("masks").get<std::vector<std::vector<float>>>();
  // The masks follow from the rule and the golden numbers: this pins drop probabilities and
  // rounding.
  for (size_t block = 0; block < masks.size(); ++block) {
    const double drop =
        golden.at("rate").get<double>() * static_cast<double>(block) / static_cast<double>(6);
    expect_near(drop, golden.at("drop_prob_per_block_dm").at(block), kDoubleTolerance, "rate");
    for (size_t image = 0; image < masks[block].size(); ++image) {
      const double u = (v("keep." + std::to_string(block), image) + 1) / 2;
      EXPECT_EQ(masks[block][image], u >= drop ? 1.0F : 0.0F);
    }
  }
  const Nfnet net = golden_tiny(at::kDouble, flavour_of(golden));
  ForwardOptions options;
  options.training = true;
  options.compute = at::kDouble;
  options.masks = &masks;
  const at::NoGradGuard no_grad;
  const at::Tensor logits = net.forward(golden_image_tensor({6, 3, 64, 64}, at::kDouble), options);
  const nlohmann::json& want = golden.at("no_rescale_dm");
  expect_statistics(logits, want.at("logits"), kDoubleTolerance, "logits");
  expect_near(golden_loss(logits, 0.1).item<double>(), want.at("loss"), kDoubleTolerance, "loss");
}

}  // namespace
}  // namespace nf::test

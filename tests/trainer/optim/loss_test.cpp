// Losses against golden values, against formulas written out by hand, and through autograd.
#include "trainer/optim/loss.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/golden_values.h"

namespace nf::train {
namespace {

at::Tensor logits_like_golden(at::ScalarType type) {
  std::vector<double> values(50);
  for (size_t i = 0; i < values.size(); ++i) values[i] = 4 * test::v("loss.logits", i);
  return at::tensor(values, at::kDouble).view({5, 10}).to(type);
}

at::Tensor gradient_of(const at::Tensor& loss, const at::Tensor& input) {
  return torch::autograd::grad({loss}, {input})[0];
}

at::Tensor labels_of(const std::vector<int64_t>& labels) { return at::tensor(labels, at::kLong); }

TEST(SoftmaxCrossEntropy, EqualsGoldenCases) {
  const auto golden = test::golden_json("loss_schedule.json").at("loss");
  ASSERT_EQ(golden.at("cases").size(), 4u);
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    const double relative = type == at::kDouble ? 1e-12 : 1e-5;
    const double floor = type == at::kDouble ? 1e-13 : 1e-6;
    for (const auto& c : golden.at("cases")) {
      const at::Tensor logits = logits_like_golden(type).requires_grad_(true);
      SoftmaxTargets targets{
          .labels = labels_of(golden.at("labels")), .mix_labels = {}, .ratio = {}, .weights = {}};
      if (c.at("mixed")) {
        targets.mix_labels = labels_of(golden.at("mix_labels"));
        targets.ratio = at::tensor(golden.at("ratio").get<std::vector<double>>(), at::kDouble);
      }
      const LossResult loss = softmax_cross_entropy(logits, targets, c.at("smoothing"));
      EXPECT_TRUE(test::golden_near(loss.sum.item<double>() / 5, c.at("loss"), relative, floor));
      EXPECT_NEAR(loss.per_sample.sum().item<double>(), loss.sum.item<double>(), 1e-5);
      EXPECT_FALSE(loss.per_sample.requires_grad());
      const at::Tensor grad = (gradient_of(loss.sum, logits) / 5).to(at::kDouble).contiguous();
      const std::vector<double> expected = c.at("grad");
      for (size_t i = 0; i < expected.size(); ++i)
        EXPECT_TRUE(
            test::golden_near(grad.const_data_ptr<double>()[i], expected[i], relative, floor))
            << "element " << i;
    }
  }
}

TEST(SoftmaxCrossEntropy, WeightZeroRemovesASampleWhateverItsLabel) {
  const at::Tensor all = logits_like_golden(at::kDouble);
  const at::Tensor some = all.index_select(0, at::tensor(std::vector<int64_t>{0, 2}, at::kLong));
  const LossResult reference = softmax_cross_entropy(some, {labels_of({3, 7}), {}, {}, {}}, 0.1);

  const at::Tensor logits = all.clone().requires_grad_(true);
  const at::Tensor weights = at::tensor(std::vector<float>{1, 0, 1, 0, 0}, at::kFloat);
  const LossResult loss =
      softmax_cross_entropy(logits, {labels_of({3, -1, 7, 1000, 4}), {}, {}, weights}, 0.1);
  EXPECT_NEAR(loss.sum.item<double>(), reference.sum.item<double>(), 1e-13);
  const at::Tensor grad = gradient_of(loss.sum, logits);
  for (const int64_t bad : {1, 3, 4}) EXPECT_EQ(grad[bad].abs().max().item<double>(), 0.0);
  EXPECT_GT(grad[0].abs().max().item<double>(), 0.0);
}

TEST(SoftmaxCrossEntropy, ComputesShortTypesInFloat32) {
  const at::Tensor logits = logits_like_golden(at::kBFloat16);
  const LossResult loss =
      softmax_cross_entropy(logits, {labels_of({3, 0, 7, 4, 1}), {}, {}, {}}, 0);
  EXPECT_EQ(loss.sum.scalar_type(), at::kFloat);
  EXPECT_NEAR(loss.sum.item<double>() / 5, 4.4130690601125675, 0.05);
}

TEST(SoftmaxCrossEntropy, StaysFiniteForLargeLogits) {
  const at::Tensor logits = at::tensor(std::vector<float>{1e4f, -1e4f, 0}, at::kFloat).view({1, 3});
  const LossResult loss = softmax_cross_entropy(logits, {labels_of({1}), {}, {}, {}}, 0);
  EXPECT_FLOAT_EQ(loss.sum.item<float>(), 2e4f);
}

TEST(SigmoidCrossEntropy, EqualsTheFormulaWrittenOut) {
  const at::Tensor logits = logits_like_golden(at::kDouble).requires_grad_(true);
  const std::vector<uint32_t> offsets = {0, 1, 3, 3, 4, 6};
  const std::vector<int32_t> labels = {3, 0, 9, 4, 1, 2};
  const at::Tensor targets = multi_hot(offsets, labels, 10);
  EXPECT_EQ(targets.sum().item<double>(), 6.0);
  const at::Tensor weights = at::tensor(std::vector<float>{1, 1, 1, 0, 1}, at::kFloat);
  const LossResult loss = sigmoid_cross_entropy(logits, targets, weights);
  const at::Tensor grad = gradient_of(loss.sum, logits);

  double sum = 0;
  for (int64_t b = 0; b < 5; ++b) {
    double sample = 0;
    for (int64_t c = 0; c < 10; ++c) {
      const double z = logits[b][c].item<double>(), t = targets[b][c].item<double>();
      const double p = 1 / (1 + std::exp(-z));
      sample -= t * std::log(p) + (1 - t) * std::log(1 - p);
      EXPECT_NEAR(grad[b][c].item<double>(), b == 3 ? 0.0 : p - t, 1e-12);
    }
    EXPECT_NEAR(loss.per_sample[b].item<double>(), sample, 1e-12);
    if (b != 3) sum += sample;
  }
  EXPECT_NEAR(loss.sum.item<double>(), sum, 1e-11);
}

TEST(SigmoidCrossEntropy, HasTheRightGradientAtZeroAndFarOut) {
  const at::Tensor logits = at::tensor(std::vector<double>{0, 0, 800, -800}, at::kDouble)
                                .view({1, 4})
                                .requires_grad_(true);
  const at::Tensor targets = at::tensor(std::vector<double>{0, 1, 0, 1}, at::kDouble).view({1, 4});
  const LossResult loss = sigmoid_cross_entropy(logits, targets, {});
  EXPECT_NEAR(loss.sum.item<double>(), 1600 + 2 * std::log(2.0), 1e-12);
  const at::Tensor grad = gradient_of(loss.sum, logits)[0];
  const std::array<double, 4> expected = {0.5, -0.5, 1, -1};
  for (int64_t i = 0; i < 4; ++i)
    EXPECT_DOUBLE_EQ(grad[i].item<double>(), expected[static_cast<size_t>(i)]);
}

TEST(MultiHot, RefusesLabelsOutsideTheClasses) {
  const std::vector<uint32_t> offsets = {0, 1};
  const std::vector<int32_t> high = {4}, low = {-1};
  EXPECT_THROW(multi_hot(offsets, high, 4), std::logic_error);
  EXPECT_THROW(multi_hot(offsets, low, 4), std::logic_error);
}

TEST(CountCorrect, CountsRanksTiesAndWeights) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor logits =
      at::tensor(std::vector<float>{9,    8, 7, 6, 5, 4, 3,   // label 0: first
                                    9,    8, 7, 6, 5, 4, 3,   // label 4: fifth
                                    9,    8, 7, 6, 5, 4, 3,   // label 5: sixth
                                    9,    9, 1, 1, 1, 1, 1,   // label 0: tie for the first place
                                    9,    8, 7, 6, 5, 4, 3,   // label 0, weight 0
                                    kNan, 8, 7, 6, 5, 4, 3},  // label 0: NaN
                 at::kFloat)
          .view({6, 7});
  const at::Tensor weights = at::tensor(std::vector<float>{1, 1, 1, 1, 0, 1}, at::kFloat);
  const CorrectCounts counts = count_correct(logits, labels_of({0, 4, 5, 0, 0, 0}), weights);
  EXPECT_EQ(counts.top1.item<int64_t>(), 1);
  EXPECT_EQ(counts.top5.item<int64_t>(), 3);
  const CorrectCounts all = count_correct(logits, labels_of({0, 4, 5, 0, 0, 0}), {});
  EXPECT_EQ(all.top1.item<int64_t>(), 2);
}

}  // namespace
}  // namespace nf::train

// Schedule and EMA decay against golden values and at their borders.
#include "trainer/optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/golden_values.h"

namespace nf::train {
namespace {

TEST(LearningRate, EqualsGoldenSchedules) {
  const auto golden = test::golden_json("loss_schedule.json").at("schedule");
  int compared = 0;
  for (const char* name : {"imagenet", "finetune"}) {
    const auto& g = golden.at(name);
    const Schedule s{.max_lr = g.at("max"),
                     .total_steps = g.at("num_steps"),
                     .warmup_steps = g.at("warmup_steps")};
    for (const auto& row : g.at("values")) {
      const double expected = row[1];
      EXPECT_TRUE(test::golden_near(learning_rate(s, row[0]), expected, 1e-12, 1e-11))
          << name << " step " << row[0];
      ++compared;
    }
  }
  EXPECT_EQ(compared, 21);
}

TEST(LearningRate, WithoutWarmupStartsAtTheMaximum) {
  const Schedule s{.max_lr = 0.4, .total_steps = 10, .warmup_steps = 0};
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 0.4);
  EXPECT_NEAR(learning_rate(s, 5), 0.2, 1e-15);
  EXPECT_EQ(learning_rate(s, 10), 0.0);
  EXPECT_EQ(learning_rate(s, 1000), 0.0);
}

TEST(LearningRate, WarmupMayBeFractionalOrTheWholeRun) {
  const Schedule fractional{.max_lr = 1, .total_steps = 4, .warmup_steps = 0.5};
  EXPECT_EQ(learning_rate(fractional, 0), 0.0);
  EXPECT_NEAR(learning_rate(fractional, 1), 0.5 * (1 + std::cos(std::acos(-1.0) * 0.5 / 3.5)),
              1e-15);
  const Schedule whole{.max_lr = 1, .total_steps = 4, .warmup_steps = 4};
  EXPECT_DOUBLE_EQ(learning_rate(whole, 3), 0.75);
  EXPECT_DOUBLE_EQ(learning_rate(whole, 4), 1.0);
  EXPECT_EQ(learning_rate(whole, 5), 0.0);
}

TEST(LearningRate, RefusesAScheduleWithoutSteps) {
  EXPECT_THROW(learning_rate({.max_lr = 1, .total_steps = 0, .warmup_steps = 0}, 0),
               std::logic_error);
}

TEST(EmaDecay, EqualsGoldenValues) {
  const auto golden = test::golden_json("loss_schedule.json").at("schedule").at("ema");
  ASSERT_EQ(golden.size(), 10u);
  for (const auto& row : golden)
    EXPECT_TRUE(test::golden_near(ema_decay(0.99999, row[0]), row[1], 1e-12, 1e-11)) << row[0];
}

}  // namespace
}  // namespace nf::train

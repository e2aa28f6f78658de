// SWEEP.toml and the plan: strictness, the published grid's numbers, limits, a large grid.
#include "launch/sweep_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "tests/support/paths.h"

namespace nf::launch {
namespace {

using testing::HasSubstr;

class Plans : public testing::Test {
 protected:
  SweepConfig load(const std::string& text) {
    std::ofstream(dir_ / "SWEEP.toml") << text;
    return load_sweep_config(dir_ / "SWEEP.toml", {});
  }
  std::string refusal(const std::string& text) {
    try {
      load(text);
    } catch (const Error& e) {
      return std::to_string(static_cast<int>(e.code())) + ": " + e.what();
    }
    return "accepted";
  }
  test::TempDir dir_;
};

constexpr const char* kData = "[data]\nimages_per_epoch = 1000\nclasses = 10\n";

TEST_F(Plans, ThePublishedGrid) {
  const SweepConfig config =
      load_sweep_config(test::source_dir() / "configs/sweeps/paper.toml", {});
  const SweepPlan plan = plan_sweep(config, {});
  ASSERT_EQ(plan.cells.size(), 36u);
  const PlannedCell& largest = plan.cells.back();
  EXPECT_EQ(largest.model, "nfnet_f7plus");
  EXPECT_EQ(largest.epochs, 8);
  EXPECT_NEAR(largest.train_flops, 2.13e22, 0.01e22);
  EXPECT_NEAR(largest.device_hours, 110e3, 2e3);
  EXPECT_NEAR(largest.cost_usd, 53350, 1000);
  EXPECT_EQ(plan.cells.front().model, "nfnet_f0");
  const Json json = to_json(plan, config);
  EXPECT_EQ(json["runs"], 72);
  EXPECT_EQ(json["cells"][0]["rate"], "unmeasured");
  EXPECT_NEAR(json["learning_rate_min"], 1.6 / 64, 1e-12);
  EXPECT_NEAR(json["learning_rate_max"], 6.4, 1e-12);
}

TEST_F(Plans, ShippedConfigsAreRead) {
  for (const char* name : {"cifar_small", "smoke"}) {
    const auto file = test::source_dir() / "configs/sweeps" / (std::string(name) + ".toml");
    const SweepConfig config =
        load_sweep_config(file, {"data.images_per_epoch=1000", "data.classes=10"});
    EXPECT_TRUE(std::filesystem::exists(config.config)) << config.config;
    EXPECT_GE(plan_sweep(config, {}).cells.size(), 4u);
  }
}

TEST_F(Plans, LargeCellsAreNamedAndNotPlanned) {
  const SweepConfig config = load(
      std::string("models = ['nfnet_pico', 'nfnet_f0']\nepochs = [1, 2]\nimage_size = 32\n"
                  "[limit]\ndevice_hours = 1.5e-4\n[device]\nname = 'a100'\nutilization = 0.01\n") +
      kData);
  const SweepPlan plan = plan_sweep(config, {});
  ASSERT_EQ(plan.cells.size() + plan.too_large.size(), 4u);
  ASSERT_FALSE(plan.too_large.empty());
  for (const auto& cell : plan.too_large) EXPECT_GT(cell.device_hours, 1.5e-4);
  for (const auto& cell : plan.cells) EXPECT_LE(cell.device_hours, 1.5e-4);
  EXPECT_THAT(plan_text(plan, config), HasSubstr("not planned: nfnet_f0 at 2 epochs"));
}

TEST_F(Plans, TheDearestCellCanBeLeftForLater) {
  const std::string grid =
      std::string("models = ['nfnet_pico', 'nfnet_nano']\nepochs = [1, 2]\nimage_size = 32\n") +
      kData;
  const SweepPlan all = plan_sweep(load(grid), {});
  const double dearest = all.cells.back().train_flops;
  const SweepPlan less = plan_sweep(
      load(grid + "[limit]\ntrain_flops = " + std::to_string(dearest * 0.999) + "\n"), {});
  ASSERT_EQ(less.cells.size(), 3u);
  ASSERT_EQ(less.too_large.size(), 1u);
  EXPECT_EQ(less.too_large[0].model, "nfnet_nano");
  EXPECT_EQ(less.too_large[0].epochs, 2);
}

TEST_F(Plans, SamCostsItsFirstPass) {
  const std::string grid = std::string("models = ['nfnet_pico']\nepochs = [1]\nimage_size = 32\n");
  const auto flops = [&](const std::string& more) {
    return plan_sweep(load(grid + more + kData), {}).cells[0].train_flops;
  };
  const double plain = flops("");
  EXPECT_DOUBLE_EQ(flops("set = ['sam.rho=0.05', 'sam.fraction=1.0', 'optimizer.agc_clip=0.1']\n"),
                   2 * plain);
  EXPECT_DOUBLE_EQ(flops("set = ['sam.fraction=1.0']\n"), plain) << "off";
  std::ofstream(dir_ / "train.toml") << "[model]\nname = 'x'\n[sam]\nrho = 0.05\n";
  EXPECT_DOUBLE_EQ(flops("config = 'train.toml'\n"), 1.2 * plain) << "nf-train's own fraction";
}

TEST_F(Plans, MeasuredRatesReplaceAssumedOnes) {
  const SweepConfig config =
      load(std::string("models = ['nfnet_pico', 'nfnet_nano']\nepochs = [1]\nimage_size = 32\n") +
           kData);
  EXPECT_EQ(plan_sweep(config, {}).cells[0].device_hours, 0) << "a CPU's rate is not known";
  analysis::Run run;
  run.model = "nfnet_pico";
  run.train_flops_per_image = plan_sweep(config, {}).cells[0].flops_per_image;
  run.train_flops = 3.6e12;
  run.device_hours = 1e-3;  // 1e12 FLOP a second
  const SweepPlan plan = plan_sweep(config, {run});
  EXPECT_TRUE(plan.cells[0].measured);
  EXPECT_FALSE(plan.cells[1].measured);
  for (const auto& cell : plan.cells)
    EXPECT_NEAR(cell.device_hours, cell.train_flops / 1e12 / 3600, 1e-12);
}

TEST_F(Plans, FaultsAreToldAtOnce) {
  const std::string text = refusal(
      std::string(
          "models = ['nfnet_f00', 'nfnet_pico', 'nfnet_pico']\nepochs = [0, 1]\nseeds = []\n"
          "set = ['batch.size=3', 'nonsense']\n[device]\nname = 'abacus'\n"
          "[lr]\nmin = 1.7\nmax = 1.8\n") +
      kData);
  for (const char* part :
       {"2: ", "did you mean 'nfnet_f0", "stands there twice", "0 is no budget", "seeds",
        "batch.size is the sweep's own", "'nonsense' is not key=value", "abacus", "no notch"})
    EXPECT_THAT(text, HasSubstr(part));
  EXPECT_THAT(refusal("modells = ['nfnet_f0']\n"), HasSubstr("models"));
  EXPECT_THAT(refusal("models = ['nfnet_f0']\n"), HasSubstr("3: no data set"));
  EXPECT_EQ(refusal(std::string("models = ['nfnet_f0']\n") + kData), "accepted");
}

TEST_F(Plans, OneThousandCells) {
  std::string text =
      "models = ['nfnet_f0', 'nfnet_f1', 'nfnet_f2', 'nfnet_f3', 'nfnet_f4']\n"
      "epochs = [";
  for (int i = 1; i <= 200; ++i) text.append(std::to_string(i)).append(", ");
  const SweepConfig config = load(text + "]\n" + kData);
  const SweepPlan plan = plan_sweep(config, {});
  ASSERT_EQ(plan.cells.size(), 1000u);
  for (size_t i = 1; i < plan.cells.size(); ++i)
    EXPECT_LE(plan.cells[i - 1].train_flops, plan.cells[i].train_flops);
}

}  // namespace
}  // namespace nf::launch

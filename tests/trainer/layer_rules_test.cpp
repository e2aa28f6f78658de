// Freezing and learning rates by layer: layers as timm counts them (the numbers below were printed
// by timm 1.0.31's param_groups_layer_decay for dm_nfnet_f0).
#include "trainer/layer_rules.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "models/nfnet/names.h"

namespace nf::train {
namespace {

std::vector<Param> params_of(const model::NfnetSpec& spec) {
  std::vector<Param> out;
  for (const auto& p : model::parameter_specs(spec)) {
    out.push_back({.name = p.name, .value = at::zeros({1}), .role = p.role});
    out.back().value.set_requires_grad(true);
  }
  return out;
}

std::vector<Param> after(const OptimizerConfig& config) {
  const model::NfnetSpec spec = model::nfnet_spec("nfnet_f0");
  std::vector<Param> params = params_of(spec);
  apply_layer_rules(config, spec, params);
  return params;
}

const Param& find(const std::vector<Param>& params, const std::string& name) {
  for (const Param& p : params)
    if (p.name == name) return p;
  throw std::out_of_range(name);
}

TEST(LayerRules, LayersAreThoseOfTimm) {
  const model::NfnetSpec spec = model::nfnet_spec("nfnet_f0");
  EXPECT_EQ(layer_count(spec), 14);
  const std::vector<std::pair<std::string, int64_t>> timm = {{"stem.conv1.weight", 0},
                                                             {"stem.conv4.gain", 0},
                                                             {"stages.0.0.skipinit_gain", 1},
                                                             {"stages.1.0.downsample.conv.bias", 2},
                                                             {"stages.1.1.conv2b.weight", 3},
                                                             {"stages.2.0.conv1.weight", 4},
                                                             {"stages.2.5.attn_last.fc2.bias", 9},
                                                             {"stages.3.0.conv3.gain", 10},
                                                             {"stages.3.2.conv1.weight", 12},
                                                             {"final_conv.weight", 12},
                                                             {"head.fc.weight", 13},
                                                             {"head.fc.bias", 13}};
  for (const auto& [name, layer] : timm) EXPECT_EQ(layer_of(name, spec), layer) << name;
}

TEST(LayerRules, LayerDecayIsAPowerOfTheDistanceFromTheHead) {
  OptimizerConfig config;
  config.layer_decay = 0.75;
  const auto params = after(config);
  EXPECT_EQ(find(params, "head.fc.weight").lr_scale, 1.0);
  EXPECT_DOUBLE_EQ(find(params, "stages.3.2.conv1.weight").lr_scale, 0.75);
  EXPECT_DOUBLE_EQ(find(params, "stem.conv1.bias").lr_scale, std::pow(0.75, 13));
}

TEST(LayerRules, StageScalesMultiply) {
  OptimizerConfig config;
  config.layer_decay = 0.5;
  config.stage_scale = {0.1, 0.2, 0.3, 0.4, 0.5, 10};
  const auto params = after(config);
  EXPECT_DOUBLE_EQ(find(params, "stem.conv1.bias").lr_scale, 0.1 * std::pow(0.5, 13));
  EXPECT_DOUBLE_EQ(find(params, "stages.2.0.conv1.bias").lr_scale, 0.4 * std::pow(0.5, 9));
  EXPECT_DOUBLE_EQ(find(params, "final_conv.bias").lr_scale, 10 * 0.5);
  EXPECT_DOUBLE_EQ(find(params, "head.fc.bias").lr_scale, 10);
}

TEST(LayerRules, FreezesByTheBeginningOfAName) {
  OptimizerConfig config;
  config.freeze = {"stem", "stages.2.1", "stages.3.0.conv1.weight"};
  size_t frozen = 0;
  for (const Param& p : after(config)) {
    const bool expected = p.name.starts_with("stem.") || p.name.starts_with("stages.2.1.") ||
                          p.name == "stages.3.0.conv1.weight";
    EXPECT_EQ(p.frozen, expected) << p.name;
    EXPECT_EQ(p.value.requires_grad(), !expected) << p.name;
    frozen += p.frozen ? 1 : 0;
  }
  EXPECT_EQ(frozen, 12u + 17u + 1u);
}

TEST(LayerRules, ANameThatMatchesNothingIsAnError) {
  for (const std::string name : {"stage.0", "stages.9", "stages.2.1.conv", "ste"}) {
    OptimizerConfig config;
    config.freeze = {name};
    try {
      after(config);
      FAIL() << name;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kUsage);
      EXPECT_NE(std::string(e.what()).find(name), std::string::npos);
      EXPECT_NE(e.hint().find("stages.0"), std::string::npos) << e.hint();
    }
  }
  OptimizerConfig all;
  all.freeze = {"stem", "stages", "final_conv", "head"};
  EXPECT_THROW(after(all), Error);
}

}  // namespace
}  // namespace nf::train

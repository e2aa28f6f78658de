// The table of variants and what follows from it: counts, multiply-adds, block constants, the small
// family.
#include "models/nfnet/spec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>

#include "core/error.h"
#include "models/nfnet/cost.h"
#include "models/nfnet/names.h"
#include "tests/support/golden_values.h"

namespace nf::test {
namespace {

using model::NfnetSpec;

// "F3", "F3+" (rounded, as in the released code), "F3+_paper_mid192".
NfnetSpec spec_of_golden_name(const std::string& golden) {
  const bool plus = golden.find('+') != std::string::npos;
  NfnetSpec spec = model::nfnet_spec("nfnet_f" + golden.substr(1, 1) + (plus ? "plus" : ""));
  if (plus) spec.round_mid = golden.find("_paper_mid192") == std::string::npos;
  return spec;
}

TEST(ArchCounts, EveryVariant) {
  const nlohmann::json golden = golden_json("arch_counts.json");
  ASSERT_EQ(golden.size(), 24U);
  for (const auto& [name, want] : golden.items()) {
    SCOPED_TRACE(name);
    const NfnetSpec spec = spec_of_golden_name(name);
    const model::ModelCost cost = model::model_cost(spec);
    EXPECT_EQ(cost.parameters, want.at("params").get<int64_t>());
    EXPECT_EQ(cost.tensors, want.at("tensors").get<int64_t>());
    EXPECT_EQ(cost.parameters_without_head, want.at("params_without_head").get<int64_t>());
    EXPECT_EQ(cost.no_decay_parameters, want.at("no_decay_params").get<int64_t>());
    for (const auto& [size, gmacs] : want.at("gmacs").items()) {
      const double macs = model::forward_macs(spec, std::stoll(size));
      EXPECT_NEAR(macs * 1e-9, gmacs.get<double>(), 0.5001e-4) << size;  // four printed digits
    }
    const std::vector<model::BlockSpec> blocks = model::block_specs(spec);
    for (size_t i = 0; i < want.at("beta_inv").size(); ++i) {
      EXPECT_NEAR(1 / blocks[i].beta, want.at("beta_inv")[i].get<double>(), 1e-11) << i;
    }
  }
}

TEST(Spec, PlusNetsKeepTheWholeBottleneckByDefault) {
  const NfnetSpec spec = model::nfnet_spec("nfnet_f4plus");
  const model::BlockSpec block = model::block_specs(spec).front();
  EXPECT_EQ(block.mid_channels, 192);
  EXPECT_EQ(block.groups, 1);
  EXPECT_EQ(model::model_cost(spec).parameters, 527033076);
}

TEST(Spec, KeptBottlenecksAlwaysDivideIntoTheirGroups) {
  NfnetSpec spec = model::nfnet_spec("nfnet_f0");
  spec.round_mid = false;
  for (int64_t width = 2; width <= 2048; width += 2) {
    spec.widths = {width, width, width, width};
    for (const model::BlockSpec& b : model::block_specs(spec)) {
      ASSERT_EQ(b.mid_channels % b.groups, 0) << width;
      ASSERT_GE(b.mid_channels, 1) << width;
    }
  }
}

TEST(Spec, TableOfSection1) {
  const NfnetSpec f5 = model::nfnet_spec("nfnet_f5");
  EXPECT_EQ(f5.depths, (std::vector<int64_t>{6, 12, 36, 18}));
  EXPECT_EQ(f5.train_size, 416);
  EXPECT_EQ(f5.test_size, 544);
  EXPECT_EQ(f5.dropout, 0.5);
  const NfnetSpec plus = model::nfnet_spec("nfnet_f7plus");
  EXPECT_EQ(plus.widths, (std::vector<int64_t>{384, 768, 2048, 2048}));
  EXPECT_EQ(plus.stem_channels, (std::vector<int64_t>{16, 32, 64, 192}));
  EXPECT_EQ(plus.depths, (std::vector<int64_t>{8, 16, 48, 24}));
}

TEST(Spec, VarianceBookkeepingOfF0) {
  const std::vector<double> want = {1,        0.980581, 0.980581, 0.962250, 0.980581, 0.962250,
                                    0.944911, 0.928477, 0.912871, 0.898027, 0.980581, 0.962250};
  const auto blocks = model::block_specs(model::nfnet_spec("nfnet_f0"));
  ASSERT_EQ(blocks.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(1 / blocks[i].beta, want[i], 1e-6) << i;
}

TEST(Spec, EveryNameHasASpecThatHolds) {
  for (const std::string& name : model::nfnet_names()) {
    const NfnetSpec spec = model::nfnet_spec(name);
    EXPECT_EQ(spec.name, name);
    EXPECT_NO_THROW(model::check_spec(spec));
    EXPECT_EQ(spec.stem_channels.back(), spec.widths.front() / 2) << name;
  }
  EXPECT_EQ(model::nfnet_names().size(), 20U);
}

TEST(Spec, UnknownNameSuggestsTheNearest) {
  try {
    model::nfnet_spec("nfnet_nanno");
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kUsage);
    EXPECT_NE(e.hint().find("nfnet_nano"), std::string::npos) << e.hint();
  }
  EXPECT_THROW(model::parse_flavour("jax"), Error);
}

TEST(Spec, OverridesFollowTheStemAndRefuseNonsense) {
  NfnetSpec spec = model::nfnet_spec("nfnet_f0");
  model::override_shape(spec, {1, 1, 1, 1}, {128, 256, 256, 256});
  EXPECT_EQ(spec.stem_channels, (std::vector<int64_t>{16, 32, 64, 64}));
  EXPECT_EQ(model::block_specs(spec).size(), 4U);
  EXPECT_THROW(model::override_shape(spec, {1, 2, 3}, {}), Error);
  NfnetSpec other = model::nfnet_spec("nfnet_f0");
  EXPECT_THROW(model::override_shape(other, {}, {256, 0, 256, 256}), Error);
  NfnetSpec classes = model::nfnet_spec("nfnet_f0");
  classes.classes = 0;
  EXPECT_THROW(model::check_spec(classes), Error);
  NfnetSpec strides = model::nfnet_spec("nfnet_f0");
  strides.stage_strides = {1, 2, 3, 2};
  EXPECT_THROW(model::check_spec(strides), Error);
}

TEST(Spec, BlocksOfTheTinyNet) {
  const nlohmann::json golden = golden_json("tiny_config.json");
  NfnetSpec spec;
  spec.depths = golden.at("depths").get<std::vector<int64_t>>();
  spec.widths = golden.at("widths").get<std::vector<int64_t>>();
  spec.stem_channels = golden.at("stem").get<std::vector<int64_t>>();
  spec.stem_strides = {2, 1, 1, 2};
  spec.stage_strides = {1, 2, 2, 2};
  spec.group_width = golden.at("group_width").get<int64_t>();
  spec.classes = golden.at("classes").get<int64_t>();
  EXPECT_EQ(spec.alpha, golden.at("alpha").get<double>());
  EXPECT_EQ(spec.bottleneck_ratio, golden.at("bottleneck_ratio").get<double>());
  EXPECT_EQ(spec.se_ratio, golden.at("se_ratio").get<double>());
  EXPECT_EQ(model::final_channels(spec), golden.at("final_conv").get<int64_t>());
  const auto blocks = model::block_specs(spec);
  const nlohmann::json& want = golden.at("blocks");
  ASSERT_EQ(blocks.size(), want.size());
  for (size_t i = 0; i < blocks.size(); ++i) {
    const model::BlockSpec& b = blocks[i];
    EXPECT_EQ(b.name, want[i].at("name").get<std::string>());
    EXPECT_EQ(b.in_channels, want[i].at("cin").get<int64_t>());
    EXPECT_EQ(b.out_channels, want[i].at("cout").get<int64_t>());
    EXPECT_EQ(b.mid_channels, want[i].at("mid").get<int64_t>());
    EXPECT_EQ(b.groups, want[i].at("groups").get<int64_t>());
    EXPECT_EQ(b.stride, want[i].at("stride").get<int64_t>());
    EXPECT_EQ(b.projection, want[i].at("projection").get<bool>());
    EXPECT_EQ(b.index, want[i].at("index").get<int64_t>());
    const auto multiplier = want[i].at("pre_activation_multiplier").get<double>();
    EXPECT_NEAR(1 / b.beta, multiplier, 1e-15);
  }
  const std::vector<model::ParameterSpec> parameters = model::parameter_specs(spec);
  const nlohmann::json& list = golden.at("parameters");
  ASSERT_EQ(parameters.size(), list.size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    const model::ParameterSpec& p = parameters[i];
    ASSERT_EQ(p.name, list[i][0].get<std::string>());
    ASSERT_EQ(p.shape, list[i][1].get<std::vector<int64_t>>()) << p.name;
    EXPECT_EQ(fnv1a64(p.name), std::stoull(list[i][2].get<std::string>(), nullptr, 16)) << p.name;
    const std::vector<double> values = golden_parameter(p.name, p.shape);
    for (size_t k = 0; k < list[i][3].size(); ++k) {
      EXPECT_NEAR(values.at(k), list[i][3][k].get<double>(), 1e-15) << p.name;
    }
  }
}

TEST(SmallFamily, EachAboutFourTimesTheOneBefore) {
  const std::vector<std::string> names = {"nfnet_pico", "nfnet_nano", "nfnet_micro", "nfnet_mini"};
  for (const int64_t size : {32, 64, 96}) {
    for (size_t i = 1; i < names.size(); ++i) {
      const double ratio = model::forward_macs(model::nfnet_spec(names[i]), size) /
                           model::forward_macs(model::nfnet_spec(names[i - 1]), size);
      EXPECT_GE(ratio, 3.2) << names[i] << " at " << size;
      EXPECT_LE(ratio, 4.8) << names[i] << " at " << size;
    }
  }
  EXPECT_NEAR(model::forward_macs(model::nfnet_spec("nfnet_pico"), 32), 3e6, 0.5e6);
  EXPECT_NEAR(model::forward_macs(model::nfnet_spec("nfnet_mini"), 32), 190e6, 20e6);
}

TEST(ActivationBytes, ImagesWeightsAndElements) {
  const NfnetSpec spec = model::nfnet_spec("nfnet_f0");
  const double one = model::activation_bytes_estimate(spec, 224, 1, 4);
  const double two = model::activation_bytes_estimate(spec, 224, 2, 4);
  const double three = model::activation_bytes_estimate(spec, 224, 3, 4);
  EXPECT_DOUBLE_EQ(three - two, two - one);
  // Every block keeps its output and its branch, whatever else it keeps.
  const double outputs = 256. * 56 * 56 + 2. * 512 * 28 * 28 + 6. * 1536 * 14 * 14 + 3. * 1536 * 49;
  EXPECT_GT(two - one, 4 * 2 * outputs);
  // Half the bytes for the images; linear weights have to be cast as well.
  const double low = model::activation_bytes_estimate(spec, 224, 1, 2);
  EXPECT_DOUBLE_EQ(model::activation_bytes_estimate(spec, 224, 2, 2) - low, (two - one) / 2);
  double linear = 0;
  for (const auto& p : model::parameter_specs(spec)) {
    if (has_weight_decay(p.role) && p.role != ParamRole::kConvWeight) {
      linear += static_cast<double>(p.elements());
    }
  }
  EXPECT_DOUBLE_EQ(low, one / 2 + 2 * linear);
}

}  // namespace
}  // namespace nf::test

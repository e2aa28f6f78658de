// Parameter names and order, and the words that weights which do not fit get.
#include "models/nfnet/names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "core/error.h"

namespace nf::test {
namespace {

using model::HeadRule;
using model::NamedShape;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<NamedShape> shapes_of(const std::string& variant) {
  std::vector<NamedShape> shapes;
  for (const auto& p : model::parameter_specs(model::nfnet_spec(variant))) {
    shapes.emplace_back(p.name, p.shape);
  }
  return shapes;
}

NamedShape& find(std::vector<NamedShape>& shapes, const std::string& name) {
  return *std::find_if(shapes.begin(), shapes.end(),
                       [&](const NamedShape& s) { return s.first == name; });
}

TEST(Names, F0InTimmsOrder) {
  const std::vector<NamedShape> shapes = shapes_of("nfnet_f0");
  ASSERT_EQ(shapes.size(), 233U);
  std::set<std::string> names;
  for (const auto& s : shapes) names.insert(s.first);
  EXPECT_EQ(names.size(), 233U);
  const std::vector<std::string> stage_0 = {
      "stages.0.0.skipinit_gain",        "stages.0.0.downsample.conv.weight",
      "stages.0.0.downsample.conv.bias", "stages.0.0.downsample.conv.gain",
      "stages.0.0.conv1.weight",         "stages.0.0.conv1.bias",
      "stages.0.0.conv1.gain",           "stages.0.0.conv2.weight",
      "stages.0.0.conv2.bias",           "stages.0.0.conv2.gain",
      "stages.0.0.conv2b.weight",        "stages.0.0.conv2b.bias",
      "stages.0.0.conv2b.gain",          "stages.0.0.conv3.weight",
      "stages.0.0.conv3.bias",           "stages.0.0.conv3.gain",
      "stages.0.0.attn_last.fc1.weight", "stages.0.0.attn_last.fc1.bias",
      "stages.0.0.attn_last.fc2.weight", "stages.0.0.attn_last.fc2.bias",
      "stages.1.0.skipinit_gain"};
  for (size_t i = 0; i < stage_0.size(); ++i) EXPECT_EQ(shapes[12 + i].first, stage_0[i]);
  EXPECT_EQ(shapes[0].first, "stem.conv1.weight");
  EXPECT_EQ(shapes[231].first, "head.fc.weight");
  EXPECT_EQ(shapes[232].first, "head.fc.bias");
}

TEST(Names, F0Shapes) {
  std::vector<NamedShape> s = shapes_of("nfnet_f0");
  EXPECT_THAT(find(s, "stem.conv4.weight").second, ElementsAre(128, 64, 3, 3));
  EXPECT_THAT(find(s, "stages.2.0.conv2.weight").second, ElementsAre(768, 128, 3, 3));
  EXPECT_THAT(find(s, "stages.3.0.downsample.conv.weight").second, ElementsAre(1536, 1536, 1, 1));
  EXPECT_THAT(find(s, "stages.3.2.conv1.gain").second, ElementsAre(768, 1, 1, 1));
  EXPECT_THAT(find(s, "stages.3.2.attn_last.fc1.weight").second, ElementsAre(768, 1536, 1, 1));
  EXPECT_THAT(find(s, "stages.3.2.skipinit_gain").second, ElementsAre());
  EXPECT_THAT(find(s, "final_conv.weight").second, ElementsAre(3072, 1536, 1, 1));
  EXPECT_THAT(find(s, "head.fc.weight").second, ElementsAre(1000, 3072));
}

TEST(Names, RolesDecideDecay) {
  for (const auto& p : model::parameter_specs(model::nfnet_spec("nfnet_f1"))) {
    EXPECT_EQ(has_weight_decay(p.role), p.name.ends_with(".weight")) << p.name;
    EXPECT_EQ(has_agc(p.role), p.name != "head.fc.weight") << p.name;
  }
}

TEST(Mismatches, NoneForTheSameNetInAnyOrder) {
  std::vector<NamedShape> shapes = shapes_of("nfnet_nano");
  std::reverse(shapes.begin(), shapes.end());
  EXPECT_THAT(model::weight_mismatches(model::nfnet_spec("nfnet_nano"), shapes), ElementsAre());
}

TEST(Mismatches, AreNamed) {
  std::vector<NamedShape> shapes = shapes_of("nfnet_f0");
  find(shapes, "stages.0.0.conv1.bias").first = "stages.0.0.conv1.biass";
  find(shapes, "stages.1.1.conv3.weight").second = {512, 128, 1, 1};
  shapes.push_back({"stem.conv1.gain", {16, 1, 1, 1}});
  EXPECT_THAT(model::weight_mismatches(model::nfnet_spec("nfnet_f0"), shapes),
              ElementsAre("twice: stem.conv1.gain", "missing: stages.0.0.conv1.bias [128]",
                          "shape: stages.1.1.conv3.weight is [512, 128, 1, 1], the network needs "
                          "[512, 256, 1, 1]",
                          "unexpected: stages.0.0.conv1.biass [128]"));
}

TEST(Mismatches, HeadMayDifferWhereAllowed) {
  const auto spec = model::nfnet_spec("nfnet_f0");
  std::vector<NamedShape> other = shapes_of("nfnet_f0");
  find(other, "head.fc.weight").second = {10, 3072};
  find(other, "head.fc.bias").second = {10};
  EXPECT_EQ(model::weight_mismatches(spec, other).size(), 2U);
  EXPECT_THAT(model::weight_mismatches(spec, other, HeadRule::kOptional), ElementsAre());
  std::vector<NamedShape> none(other.begin(), other.end() - 2);
  EXPECT_EQ(model::weight_mismatches(spec, none).size(), 2U);
  EXPECT_THAT(model::weight_mismatches(spec, none, HeadRule::kOptional), ElementsAre());
}

TEST(Mismatches, AnotherVariantIsRecognized) {
  try {
    model::check_weights(model::nfnet_spec("nfnet_f1"), shapes_of("nfnet_f0"), "w.safetensors");
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kWeights);
    EXPECT_EQ(e.where(), "w.safetensors");
    EXPECT_THAT(e.what(), HasSubstr("do not fit nfnet_f1"));
    EXPECT_THAT(e.what(), HasSubstr("and 199 more"));
    EXPECT_THAT(e.hint(), HasSubstr("nfnet_f0"));
  }
  EXPECT_NO_THROW(
      model::check_weights(model::nfnet_spec("nfnet_f0"), shapes_of("nfnet_f0"), "w.safetensors"));
}

TEST(HaikuNames, OfEveryKind) {
  const auto spec = model::nfnet_spec("nfnet_f0");
  const auto name = [&](const char* timm) { return model::haiku_name(spec, timm); };
  EXPECT_EQ(name("stem.conv1.weight"), "stem_conv0/w");
  EXPECT_EQ(name("stem.conv4.gain"), "stem_conv3/gain");
  EXPECT_EQ(name("stages.0.0.skipinit_gain"), "nf_block/skip_gain");
  EXPECT_EQ(name("stages.1.0.downsample.conv.bias"), "nf_block_1/conv_shortcut/bias");
  EXPECT_EQ(name("stages.2.0.conv2b.weight"), "nf_block_3/conv1b/w");
  EXPECT_EQ(name("stages.3.2.conv3.weight"), "nf_block_11/conv2/w");
  EXPECT_EQ(name("stages.0.0.attn_last.fc1.weight"), "nf_block/squeeze_excite/linear/w");
  EXPECT_EQ(name("stages.0.0.attn_last.fc2.bias"), "nf_block/squeeze_excite/linear_1/b");
  EXPECT_EQ(name("final_conv.bias"), "final_conv/bias");
  EXPECT_EQ(name("head.fc.bias"), "linear/b");
  std::set<std::string> all;
  for (const auto& p : model::parameter_specs(spec)) all.insert(model::haiku_name(spec, p.name));
  EXPECT_EQ(all.size(), 233U);
}

}  // namespace
}  // namespace nf::test

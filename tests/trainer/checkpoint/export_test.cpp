// Weights out and in again: checkpoint to file to list of tensors, and one clear message for
// everything that does not fit.
#include "trainer/checkpoint/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "core/error.h"
#include "tests/support/golden_values.h"
#include "tests/trainer/checkpoint/snapshots.h"
#include "trainer/checkpoint/checkpoint.h"

namespace nf::train {
namespace {

namespace fs = std::filesystem;
using test::same_tensors;
using test::snapshot_at;
using ::testing::AllOf;
using ::testing::HasSubstr;

Error error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kWeights);
    return e;
  }
  ADD_FAILURE() << "no error";
  return {ExitCode::kDone, "", ""};
}

std::vector<ExpectedTensor> expected_of(const std::vector<NamedTensor>& tensors) {
  std::vector<ExpectedTensor> out;
  for (const NamedTensor& t : tensors) out.push_back({t.name, t.tensor.sizes().vec()});
  return out;
}

class Export : public ::testing::Test {
 protected:
  Export() { save_checkpoint(root_ / "checkpoints", snapshot_); }
  fs::path checkpoint() const { return checkpoint_path(root_ / "checkpoints", 40); }
  test::TempDir root_;
  Snapshot snapshot_ = snapshot_at(40);
};

TEST_F(Export, ReadsACheckpointAFolderOfThemAndARun) {
  for (const fs::path& path :
       {checkpoint(), root_ / "checkpoints", root_.path(), fs::path(root_.path().string() + "/")}) {
    const WeightsSource raw = read_weights(path);
    EXPECT_TRUE(same_tensors(raw.tensors, snapshot_.model)) << path;
    EXPECT_FALSE(raw.ema);
    EXPECT_EQ(raw.path.filename(), "model.safetensors");
    EXPECT_EQ(raw.metadata.at("model"), "nfnet_nano");
    EXPECT_EQ(raw.metadata.at("step"), "40");
    const WeightsSource ema = read_weights(path, WeightsChoice::kEma);
    EXPECT_TRUE(same_tensors(ema.tensors, snapshot_.ema)) << path;
    EXPECT_TRUE(ema.ema);
  }
}

TEST_F(Export, WithoutEmaTheChoiceDecides) {
  save_checkpoint(root_ / "checkpoints", snapshot_at(41, false));
  EXPECT_FALSE(read_weights(root_.path(), WeightsChoice::kEmaIfPresent).ema);
  const Error e = error_of([&] { read_weights(root_.path(), WeightsChoice::kEma); });
  EXPECT_THAT(e.what(), HasSubstr("no EMA weights"));
}

TEST_F(Export, RoundTripKeepsEveryBitAndTellsItsOrigin) {
  const fs::path file = root_ / "out.safetensors";
  export_weights(read_weights(checkpoint(), WeightsChoice::kEma), file,
                 {.keep_head = true, .metadata = {{"image_size", "32"}}});
  const WeightsSource back = read_weights(file);
  EXPECT_TRUE(same_tensors(back.tensors, snapshot_.ema));
  EXPECT_TRUE(back.ema);
  EXPECT_EQ(back.metadata, (Metadata{{"classes", "10"},
                                     {"flavour", "dm"},
                                     {"format", "pt"},
                                     {"head", "keep"},
                                     {"image_size", "32"},
                                     {"model", "nfnet_nano"},
                                     {"producer", "nfscale 0.1.0"},
                                     {"step", "40"},
                                     {"weights", "ema"}}));
  const std::string bytes = read_file(file);
  export_weights(read_weights(checkpoint(), WeightsChoice::kEma), file,
                 {.keep_head = true, .metadata = {{"image_size", "32"}}});
  EXPECT_EQ(read_file(file), bytes);
}

TEST_F(Export, DropsTheHead) {
  const fs::path file = root_ / "body.safetensors";
  export_weights(read_weights(checkpoint()), file, {.keep_head = false});
  const WeightsSource body = read_weights(file);
  EXPECT_EQ(body.tensors.size(), 2u);
  EXPECT_EQ(body.metadata.at("head"), "drop");
  const Error e =
      error_of([&] { fit_weights(body, expected_of(snapshot_.model), {.model = "nfnet_nano"}); });
  EXPECT_THAT(e.what(), HasSubstr("2 missing: head.fc.weight; head.fc.bias"));
  EXPECT_THAT(e.hint(), HasSubstr("init.new_head = true"));
  EXPECT_EQ(fit_weights(body, expected_of(snapshot_.model), {.new_head = true}).size(), 2u);
}

TEST_F(Export, FailsWithoutLeavingARest) {
  try {
    export_weights(read_weights(checkpoint()), root_ / "absent" / "f.safetensors", {});
    FAIL() << "wrote into a missing folder";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kOther);
  }
}

TEST_F(Export, FitsInTheOrderAskedFor) {
  std::vector<ExpectedTensor> expected = expected_of(snapshot_.model);
  std::reverse(expected.begin(), expected.end());
  const auto fitted = fit_weights(read_weights(checkpoint()), expected, {});
  ASSERT_EQ(fitted.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(fitted[i].name, expected[i].name);
  EXPECT_TRUE(same_tensors(fitted, snapshot_.model));
}

TEST_F(Export, OneMessageListsEverythingThatDoesNotFit) {
  std::vector<ExpectedTensor> expected = expected_of(snapshot_.model);
  expected[0].shape = {4, 3, 11};
  expected[1].name = "stages.0.0.conv1.gain";
  for (int i = 0; i < 20; ++i)
    expected.push_back({"stages.1." + std::to_string(i) + ".conv1.bias", {4}});
  const Error e =
      error_of([&] { fit_weights(read_weights(checkpoint()), expected, {.model = "nfnet_f1"}); });
  EXPECT_THAT(
      e.what(),
      AllOf(HasSubstr("do not fit nfnet_f1"), HasSubstr("the file says they are of nfnet_nano"),
            HasSubstr("21 missing: stages.0.0.conv1.gain; stages.1.0.conv1.bias"),
            HasSubstr("and 9 more"), HasSubstr("1 unexpected: stages.0.0.skipinit_gain"),
            HasSubstr("1 of another shape: stem.conv1.weight [4, 33], expected [4, 3, 11]")));
  EXPECT_THAT(e.hint(), HasSubstr("model.name"));
  EXPECT_THAT(e.where(), HasSubstr("model.safetensors"));
}

TEST_F(Export, AHeadOfOtherClassesNeedsANewHead) {
  std::vector<ExpectedTensor> expected = expected_of(snapshot_.model);
  expected[2].shape = {100, 4};
  expected[3].shape = {100};
  const WeightsSource source = read_weights(checkpoint());
  const Error e = error_of([&] { fit_weights(source, expected, {}); });
  EXPECT_THAT(e.what(), HasSubstr("head.fc.weight [10, 4], expected [100, 4]"));
  EXPECT_THAT(e.hint(), HasSubstr("init.new_head = true"));
  const auto body = fit_weights(source, expected, {.new_head = true});
  ASSERT_EQ(body.size(), 2u);
  EXPECT_EQ(body[0].name, "stem.conv1.weight");
}

TEST_F(Export, RefusesPyTorchFilesWithAHint) {
  for (const char* name : {"w.pth", "w.pt", "w.bin"}) {
    write_file_atomic(root_ / name, "anything");
    const Error e = error_of([&] { read_weights(root_ / name); });
    EXPECT_THAT(e.what(), HasSubstr("a PyTorch file"));
    EXPECT_THAT(e.hint(), HasSubstr("save_file"));
  }
  write_file_atomic(root_ / "zip.safetensors", std::string("PK\3\4 and so on"));
  EXPECT_THAT(error_of([&] { read_weights(root_ / "zip.safetensors"); }).what(),
              HasSubstr("a PyTorch file"));
}

TEST_F(Export, RefusesOtherTypesThanFloat32) {
  for (const at::ScalarType type : {at::kHalf, at::kBFloat16, at::kLong}) {
    write_tensors(root_ / "f.safetensors",
                  {{"a", at::ones({2}, at::kFloat)}, {"b", at::ones({2}, type)}}, {});
    const Error e = error_of([&] { read_weights(root_ / "f.safetensors"); });
    EXPECT_THAT(e.what(), HasSubstr("1 of 2 tensors are not float32, first: b ("));
    EXPECT_THAT(e.hint(), HasSubstr("float32"));
  }
}

TEST_F(Export, SaysWhatIsNotThere) {
  EXPECT_THAT(error_of([&] { read_weights(root_ / "absent"); }).what(), HasSubstr("no such file"));
  fs::create_directories(root_ / "empty");
  EXPECT_THAT(error_of([&] { read_weights(root_ / "empty"); }).what(),
              HasSubstr("holds no checkpoint"));
  fs::remove(checkpoint() / "manifest.json");
  EXPECT_THAT(error_of([&] { read_weights(checkpoint()); }).what(), HasSubstr("not a checkpoint"));
}

TEST_F(Export, PassesOverADamagedCheckpointWithAWarning) {
  save_checkpoint(root_ / "checkpoints", snapshot_at(41));
  fs::resize_file(checkpoint_path(root_ / "checkpoints", 41) / "model.safetensors", 10);
  const WeightsSource source = read_weights(root_.path());
  EXPECT_TRUE(same_tensors(source.tensors, snapshot_.model));
  ASSERT_EQ(source.warnings.size(), 1u);
  EXPECT_THAT(source.warnings[0], HasSubstr("step_000000041"));
}

TEST_F(Export, ReadsGoldenWeights) {
  const WeightsSource source = read_weights(test::golden("nfnet/tiny_init_f64.safetensors"));
  EXPECT_EQ(source.tensors.size(), 131u);
  for (const NamedTensor& t : source.tensors) {
    const auto expected = test::golden_parameter(t.name, t.tensor.sizes().vec());
    EXPECT_NEAR(t.tensor.const_data_ptr<double>()[0], expected[0], 1e-14) << t.name;
  }
}

}  // namespace
}  // namespace nf::train

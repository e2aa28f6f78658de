// Weights that do not fit, as a user meets them: nf-train ends with exit code 4 and one message
// that lists all that is wrong.
#include <gtest/gtest.h>

#include "tests/support/tiny_run.h"
#include "trainer/checkpoint/export.h"

namespace nf {
namespace {
namespace fs = std::filesystem;

class BadWeights : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new test::TempDir;
    test::make_shapes_dataset(scratch("data"), 16, 10);
    std::ofstream(scratch("empty.toml")) << "# all keys by --set\n";
    const auto o = train("good", {"limit.steps=1"});
    if (o.code != 0) throw std::runtime_error(o.err);
  }
  static void TearDownTestSuite() { delete scratch_; }
  static fs::path scratch(const std::string& name) { return *scratch_ / name; }

  static test::Outcome train(const std::string& run, const std::vector<std::string>& more) {
    return test::run(test::nf_train(scratch("empty.toml").string(), scratch("data").string(),
                                    scratch(run).string(), more));
  }
  // Starts from these weights: exit code 4, each of the words in the message, no run left behind
  // that looks like one.
  static void expect_refused(const fs::path& weights, std::vector<std::string> more,
                             const std::vector<std::string>& words) {
    more.insert(more.end(), {"init.weights=" + weights.string(), "limit.steps=1"});
    const auto o = train("refused_" + weights.filename().string(), more);
    EXPECT_EQ(o.code, 4) << o.err;
    EXPECT_NE(o.err.find("error: "), std::string::npos) << o.err;
    EXPECT_NE(o.err.find("hint: "), std::string::npos) << o.err;
    for (const auto& w : words)
      EXPECT_NE(o.err.find(w), std::string::npos) << "no \"" << w << "\" in: " << o.err;
    fs::remove_all(scratch("refused_" + weights.filename().string()));
  }
  static train::WeightsSource good() { return train::read_weights(scratch("good")); }
  static fs::path write(const std::string& name, const std::vector<train::NamedTensor>& tensors) {
    train::write_tensors(scratch(name), tensors, {});
    return scratch(name);
  }

 private:
  static test::TempDir* scratch_;
};
test::TempDir* BadWeights::scratch_ = nullptr;

TEST_F(BadWeights, OfAnotherVariant) {
  expect_refused(scratch("good"), {"model.widths=[32,32,64,96]", "model.depths=[1,1,2,1]"},
                 {"do not fit", "17 missing: stages.2.1.skipinit_gain", "of another shape",
                  "stages.3.0.conv2.weight [32, 8, 3, 3], expected [48, 8, 3, 3]", "model.name"});
}

TEST_F(BadWeights, OfOtherClassesWithoutANewHead) {
  expect_refused(scratch("good"), {"model.classes=17"},
                 {"2 of another shape: head.fc.weight [10, 128], expected [17, 128]; head.fc.bias",
                  "init.new_head = true"});
  EXPECT_EQ(train("new_head", {"model.classes=17", "init.new_head=true", "limit.steps=1",
                               "init.weights=" + scratch("good").string()})
                .code,
            0);
}

TEST_F(BadWeights, WithACorruptedHeader) {
  const fs::path whole = test::latest(scratch("good")) / "model.safetensors";
  const auto damaged = [&](const std::string& name, size_t at, char value) {
    std::string bytes = test::slurp(whole);
    bytes[at] = value;
    std::ofstream(scratch(name), std::ios::binary) << bytes;
    return scratch(name);
  };
  expect_refused(damaged("length.safetensors", 6, '\x7f'), {}, {"length.safetensors", "header"});
  expect_refused(damaged("json.safetensors", 8, '['), {}, {"json.safetensors", "header"});
  std::ofstream(scratch("short.safetensors"), std::ios::binary)
      << test::slurp(whole).substr(0, 5000);
  expect_refused(scratch("short.safetensors"), {}, {"short.safetensors"});
  std::ofstream(scratch("empty.safetensors"), std::ios::binary) << "";
  expect_refused(scratch("empty.safetensors"), {}, {"not a safetensors file"});
}

TEST_F(BadWeights, OfFloat16) {
  auto tensors = good().tensors;
  const size_t count = tensors.size();
  for (auto& t : tensors) t.tensor = t.tensor.to(at::kHalf);
  expect_refused(write("half.safetensors", tensors), {},
                 {std::to_string(count) + " of " + std::to_string(count), "float32", "Half"});
}

TEST_F(BadWeights, WithTensorsMissingAndOthersTooMany) {
  auto tensors = good().tensors;
  std::erase_if(tensors, [](const auto& t) { return t.name.starts_with("stages.1.0.conv2."); });
  tensors.push_back({"stages.1.0.attn.fc1.weight", at::zeros({3})});
  expect_refused(write("holes.safetensors", tensors), {},
                 {"3 missing: stages.1.0.conv2.weight; stages.1.0.conv2.bias; "
                  "stages.1.0.conv2.gain",
                  "1 unexpected: stages.1.0.attn.fc1.weight"});
}

TEST_F(BadWeights, AsPyTorchWritesThem) {
  std::ofstream(scratch("weights.pth"), std::ios::binary) << "PK\3\4 and so on";
  expect_refused(scratch("weights.pth"), {}, {"PyTorch file", "save_file", "weights_only=True"});
  std::ofstream(scratch("renamed.safetensors"), std::ios::binary) << "PK\3\4 and so on";
  expect_refused(scratch("renamed.safetensors"), {}, {"PyTorch file"});
}

TEST_F(BadWeights, ThatAreNotThere) {
  expect_refused(scratch("nowhere"), {}, {"nowhere", "no such file"});
  fs::create_directory(scratch("hollow"));
  expect_refused(scratch("hollow"), {}, {"holds no checkpoint"});
}

}  // namespace
}  // namespace nf

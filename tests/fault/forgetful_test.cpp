// The loader that forgets its place, which prices the published defect (bench/forgetful_order.cpp):
// it starts at the head of the order where it was told to, and does nothing else.
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

#include "tests/support/tiny_run.h"

namespace nf {
namespace {
namespace fs = std::filesystem;

// The samples in order of position.
std::vector<uint64_t> samples(const fs::path& run_dir) {
  std::istringstream in(test::slurp(run_dir / "trace/rank_00000.tsv"));
  std::vector<uint64_t> out;
  for (uint64_t step, position, epoch, sample; in >> step >> position >> epoch >> sample;) {
    EXPECT_EQ(position, out.size());
    out.push_back(sample);
  }
  return out;
}

TEST(Forgetful, StartsAtTheHeadOfTheOrderAndChangesNothingElse) {
  const test::TempDir scratch;
  const std::string data = (scratch / "data").string();
  test::make_shapes_dataset(data, 20, 20);
  std::ofstream(scratch / "empty.toml") << "# all keys by --set\n";
  const auto train = [&](const std::string& program, const std::string& run,
                         const char* forget_at) {
    auto argv = test::nf_train((scratch / "empty.toml").string(), data, (scratch / run).string(),
                               {"data.trace=true", "evaluate.split=holdout"});
    argv[0] = program;
    ::setenv("FORGET_AT", forget_at, 1);
    const auto ended = test::run(argv);
    ::unsetenv("FORGET_AT");
    ASSERT_EQ(ended.code, 0) << ended.err;
  };
  train(test::program("nf-train").string(), "ours", "");
  const auto ours = samples(scratch / "ours");
  ASSERT_GT(ours.size(), 144u);
  train(NF_FORGETFUL, "never", "");
  for (const auto& file : test::state_files())
    EXPECT_EQ(test::slurp(test::latest(scratch / "ours") / file),
              test::slurp(test::latest(scratch / "never") / file))
        << file;
  // Batches of 48: preempted after the first and the third.
  train(NF_FORGETFUL, "twice", "48,144");
  const auto twice = samples(scratch / "twice");
  ASSERT_EQ(twice.size(), ours.size());
  for (size_t p = 0; p < twice.size(); ++p)
    EXPECT_EQ(twice[p], ours[p < 48 ? p : p < 144 ? p - 48 : p - 144]) << p;
  EXPECT_NE(test::slurp(test::latest(scratch / "ours") / "model.safetensors"),
            test::slurp(test::latest(scratch / "twice") / "model.safetensors"));
}

}  // namespace
}  // namespace nf

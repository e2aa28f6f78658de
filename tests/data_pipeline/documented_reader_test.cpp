// The lines of Python in docs/data_format.md, run as they stand there on a shard that nf-pack made:
// whoever copies them gets the images, sizes and labels.
#include <gtest/gtest.h>

#include <fstream>

#include "data_pipeline/decode.h"
#include "data_pipeline/pack.h"
#include "data_pipeline/shard_dataset.h"
#include "tests/data_pipeline/store_fixtures.h"
#include "tests/support/process.h"

namespace nf::data {
namespace {

namespace fs = std::filesystem;

std::string python_block() {
  const std::string text = test::slurp(test::source_dir() / "docs/data_format.md");
  const std::string begin = "```python\n";
  const size_t from = text.find(begin) + begin.size();
  return text.substr(from, text.find("```", from) - from);
}

// Debian's own interpreter, for which ./dev setup installs h5py; NF_TEST_PYTHON names another.
std::string python() {
  const char* other = std::getenv("NF_TEST_PYTHON");
  return other != nullptr ? other : "/usr/bin/python3";
}

TEST(DocumentedReader, TheLinesInTheFormatDescriptionReadAShard) {
  const test::TempDir dir;
  test::draw_class_folders(dir / "images", 3, 2, 5);
  PackOptions options;
  options.input = dir / "images";
  options.output = dir / "set";
  options.workers = 1;
  pack(options);
  fs::copy_file(dir / "set/train-00000.h5", dir / "train-00000.h5");
  const std::string code = python_block();
  ASSERT_NE(code.find("h5py.File(\"train-00000.h5\")"), std::string::npos);
  std::ofstream(dir / "read.py") << code;
  const auto run = test::run(
      {"bash", "-c", "cd '" + dir.path().string() + "' && exec '" + python() + "' read.py"});
  ASSERT_EQ(run.code, 0) << run.err << "\nh5py and PIL are missing? ./dev setup installs them";

  const ShardDataset set(dir / "set", "train");
  std::string expected;
  for (uint64_t i = 0; i < 3; ++i) {
    SampleData data;
    ASSERT_TRUE(set.read(i, data).ok());
    Image image;
    ASSERT_TRUE(decode_image(data.bytes, image).ok());
    expected += std::to_string(i) + " (" + std::to_string(image.width) + ", " +
                std::to_string(image.height) + ") [" + std::to_string(data.labels[0]) + "]\n";
  }
  EXPECT_EQ(run.out, expected);
}

}  // namespace
}  // namespace nf::data

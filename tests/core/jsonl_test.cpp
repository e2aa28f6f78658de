// Logs of one JSON object a line survive kills: a torn last line is dropped and cut off, a broken
// one elsewhere is an error.
#include "core/jsonl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/atomic_file.h"
#include "core/error.h"
#include "tests/support/paths.h"

namespace nf {
namespace {

void write(const std::filesystem::path& file, const std::string& text) {
  std::ofstream(file, std::ios::binary) << text;
}

TEST(Jsonl, WritesLinesInOrderOfKeysAndReadsThem) {
  const test::TempDir dir;
  {
    JsonlWriter log(dir / "log.jsonl");
    log.append({{"step", 1}, {"loss", 0.5}});
    log.append({{"z", "text\nwith a line end"}, {"a", nullptr}});
    log.sync();
  }
  EXPECT_EQ(read_file(dir / "log.jsonl"),
            "{\"step\":1,\"loss\":0.5}\n{\"z\":\"text\\nwith a line end\",\"a\":null}\n");
  const auto lines = read_jsonl(dir / "log.jsonl");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["step"], 1);
}

TEST(Jsonl, AMissingFileHasNoLines) {
  const test::TempDir dir;
  EXPECT_TRUE(read_jsonl(dir / "absent.jsonl").empty());
}

TEST(Jsonl, ATornLastLineIsDroppedByTheReaderAtEveryByte) {
  const test::TempDir dir;
  const std::string whole = "{\"step\":1}\n", second = "{\"step\":22}\n";
  for (size_t cut = 0; cut < second.size(); ++cut) {
    write(dir / "log.jsonl", whole + second.substr(0, cut));
    EXPECT_EQ(read_jsonl(dir / "log.jsonl").size(), 1u) << "cut after " << cut << " bytes";
  }
}

TEST(Jsonl, ATornLastLineIsCutOffByTheWriter) {
  const test::TempDir dir;
  write(dir / "log.jsonl", "{\"step\":1}\n{\"step\":2");
  JsonlWriter log(dir / "log.jsonl");
  log.append({{"step", 2}});
  EXPECT_EQ(read_file(dir / "log.jsonl"), "{\"step\":1}\n{\"step\":2}\n");
}

TEST(Jsonl, LinesThatAreNotKeptAreRemoved) {
  const test::TempDir dir;
  write(dir / "log.jsonl", "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
  JsonlWriter log(dir / "log.jsonl", [](const Json& line) { return line["step"] <= 2; });
  log.append({{"step", 9}});
  EXPECT_EQ(read_file(dir / "log.jsonl"), "{\"step\":1}\n{\"step\":2}\n{\"step\":9}\n");
}

TEST(Jsonl, ABrokenLineInTheMiddleIsAnErrorWithItsNumber) {
  const test::TempDir dir;
  write(dir / "log.jsonl", "{\"step\":1}\n{\"step\"\n{\"step\":3}\n");
  try {
    read_jsonl(dir / "log.jsonl");
    ADD_FAILURE() << "did not throw";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kData);
    EXPECT_THAT(e.where(), testing::EndsWith("log.jsonl:2"));
  }
}

TEST(Jsonl, AFolderThatIsMissingIsAnError) {
  const test::TempDir dir;
  EXPECT_THROW(JsonlWriter(dir / "absent" / "log.jsonl"), Error);
}

}  // namespace
}  // namespace nf

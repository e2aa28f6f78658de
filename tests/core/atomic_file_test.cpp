// Files are the old or the new version, never a mixture, and failures name the path.
#include "core/atomic_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "core/error.h"
#include "tests/support/paths.h"

namespace nf {
namespace {

namespace fs = std::filesystem;

size_t entries(const fs::path& directory) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(directory), {}));
}

TEST(WriteFileAtomic, WritesReplacesAndLeavesNothingBeside) {
  const test::TempDir dir;
  const std::string binary("a\0b\n", 4);
  write_file_atomic(dir / "file", binary);
  EXPECT_EQ(read_file(dir / "file"), binary);
  write_file_atomic(dir / "file", "");
  EXPECT_EQ(read_file(dir / "file"), "");
  EXPECT_EQ(entries(dir.path()), 1u);
}

TEST(WriteFileAtomic, AFailureKeepsTheOldFileAndRemovesTheTemporaryOne) {
  const test::TempDir dir;
  fs::create_directory(dir / "target");
  write_file_atomic(dir / "target" / "inside", "old");
  // A folder that is not empty cannot be replaced by a file: the rename fails after the writing.
  EXPECT_THROW(write_file_atomic(dir / "target", "new"), Error);
  EXPECT_EQ(entries(dir.path()), 1u);
  EXPECT_EQ(read_file(dir / "target" / "inside"), "old");
}

TEST(WriteFileAtomic, NamesThePathThatCannotBeWritten) {
  const test::TempDir dir;
  try {
    write_file_atomic(dir / "absent" / "file", "text");
    ADD_FAILURE() << "did not throw";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kOther);
    EXPECT_THAT(e.where(), testing::HasSubstr((dir / "absent" / "file").string()));
    EXPECT_THAT(e.what(), testing::HasSubstr("No such file"));
  }
}

TEST(ThrowIoError, AFullDiskGetsAHint) {
  try {
    throw_io_error("/data/file", "cannot write", ENOSPC);
  } catch (const Error& e) {
    EXPECT_EQ(e.where(), "/data/file");
    EXPECT_THAT(e.what(), testing::StartsWith("cannot write: "));
    EXPECT_THAT(e.hint(), testing::HasSubstr("free space"));
  }
}

TEST(OutputFile, AFullDeviceIsAnError) {
  EXPECT_THROW(
      {
        OutputFile out("/dev/full");
        out.write("text", 4);
        out.finish();
      },
      Error);
}

TEST(OutputFile, TruncatesAndAppends) {
  const test::TempDir dir;
  write_file_atomic(dir / "file", "something longer");
  {
    OutputFile out(dir / "file");
    out.write("ab", 2);
    out.write("c", 1);
    out.finish();
  }
  EXPECT_EQ(read_file(dir / "file"), "abc");
}

TEST(ReadFile, AMissingFileIsAnErrorThatNamesIt) {
  const test::TempDir dir;
  try {
    read_file(dir / "absent");
    ADD_FAILURE() << "did not throw";
  } catch (const Error& e) {
    EXPECT_EQ(e.where(), (dir / "absent").string());
  }
}

TEST(RenameDurable, MovesIntoPlace) {
  const test::TempDir dir;
  write_file_atomic(dir / "a", "text");
  rename_durable(dir / "a", dir / "b");
  EXPECT_FALSE(fs::exists(dir / "a"));
  EXPECT_EQ(read_file(dir / "b"), "text");
  EXPECT_THROW(rename_durable(dir / "a", dir / "c"), Error);
}

}  // namespace
}  // namespace nf

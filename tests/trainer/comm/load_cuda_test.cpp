// Loading the CUDA plug-in: a good one works, and each way to fail says what is wrong with
// run.device and how to mend it.
#include "trainer/device/load_cuda.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "tests/support/paths.h"

namespace nf::test {
namespace {

using testing::HasSubstr;

// The Error that loading must throw.
Error refusal(const std::filesystem::path& library) {
  try {
    train::load_cuda_plugin(library);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kUsage);
    EXPECT_EQ(e.where(), "run.device");
    EXPECT_NE(e.hint(), "");
    return e;
  }
  ADD_FAILURE() << "loaded " << library;
  return Error(ExitCode::kDone, "", "");
}

TEST(LoadCuda, AGoodPlugInWorksAndLoadsOnce) {
  const train::CudaPlugin& plugin = train::load_cuda_plugin(NF_GOOD_PLUGIN);
  EXPECT_EQ(plugin.device_count(), 3);
  EXPECT_EQ(&train::load_cuda_plugin(NF_GOOD_PLUGIN), &plugin);
}

TEST(LoadCuda, AMissingLibrary) {
  const TempDir dir;
  EXPECT_THAT(refusal(dir / "libnf_cuda.so").what(), HasSubstr("no CUDA plug-in"));
}

TEST(LoadCuda, AFileThatIsNoLibrary) {
  const TempDir dir;
  std::ofstream(dir / "libnf_cuda.so") << "text";
  EXPECT_THAT(refusal(dir / "libnf_cuda.so").what(), HasSubstr("cannot load"));
}

TEST(LoadCuda, ALibraryWithoutTheEntry) {
  EXPECT_THAT(refusal(NF_OTHER_LIBRARY).what(), HasSubstr("is not the CUDA plug-in"));
}

TEST(LoadCuda, AnotherVersion) {
  EXPECT_THAT(refusal(NF_OLD_PLUGIN).what(), HasSubstr("is of version 1, this program needs 3"));
}

TEST(LoadCuda, ThePlugInLiesBesideThePrograms) {
  EXPECT_EQ(train::cuda_plugin_path("/opt/nf/bin/nf-train"), "/opt/nf/lib/libnf_cuda.so");
}

}  // namespace
}  // namespace nf::test

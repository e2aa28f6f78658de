// A hanging MPI rank ends the whole job with exit code 5 and is named; started alone, the
// communicator has one rank.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <string>

namespace {

// Runs a shell command; its output, standard error included, goes to *output.
int exit_code_of(const std::string& command, std::string* output) {
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (!pipe) return -1;
  char block[4096];
  while (const size_t n = fread(block, 1, sizeof block, pipe)) output->append(block, n);
  const int status = pclose(pipe);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(MpiLostRank, IsNamedAndEndsTheJob) {
  std::string output;
  const int code =
      exit_code_of(NF_MPIEXEC " --oversubscribe --bind-to none -np 3 " NF_LOST_RANK, &output);
  EXPECT_EQ(code, 5) << output;
  EXPECT_THAT(output, testing::HasSubstr("barrier: no answer from rank 2 on "));
  EXPECT_THAT(output, testing::HasSubstr("within 1.0 s"));
}

TEST(MpiAlone, WorksWithoutALauncher) {
  std::string output;
  EXPECT_EQ(exit_code_of(std::string(NF_MPI_TEST) + " --gtest_filter=*Conformance", &output), 0)
      << output;
  EXPECT_THAT(output, testing::HasSubstr("1 test"));
}

}  // namespace

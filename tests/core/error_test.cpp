// How failures reach the user: NF_CHECK, the contract's "error:" and "hint:" lines, and exit codes.
#include "core/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <new>

#include "core/check.h"
#include "core/program.h"

namespace nf {
namespace {

using testing::HasSubstr;

TEST(Check, PassesSilentlyAndFailsWithPlaceConditionAndText) {
  EXPECT_NO_THROW(NF_CHECK(1 + 1 == 2));
  int evaluated = 0;
  try {
    NF_CHECK(++evaluated == 2, "told why");
    ADD_FAILURE() << "did not throw";
  } catch (const std::logic_error& e) {
    EXPECT_THAT(e.what(), HasSubstr("error_test.cpp:"));
    EXPECT_THAT(e.what(), HasSubstr("++evaluated == 2"));
    EXPECT_THAT(e.what(), HasSubstr("told why"));
  }
  EXPECT_EQ(evaluated, 1);
}

// Runs a program body that throws; its standard error goes to *text.
template <class Body>
int run(Body body, std::string* text) {
  testing::internal::CaptureStderr();
  const int code = run_program("nf-test", [&]() -> int { return body(); });
  *text = testing::internal::GetCapturedStderr();
  return code;
}

TEST(RunProgram, PassesTheResultThrough) {
  std::string text;
  EXPECT_EQ(run([] { return 75; }, &text), 75);
  EXPECT_EQ(text, "");
}

TEST(RunProgram, PrintsWhereWhatAndHint) {
  std::string text;
  EXPECT_EQ(
      run([]() -> int { throw Error(ExitCode::kData, "a.h5:3", "bad sum", "pack again"); }, &text),
      3);
  EXPECT_EQ(text, "error: a.h5:3: bad sum\nhint: pack again\n");
  EXPECT_EQ(run([]() -> int { throw Error(ExitCode::kUsage, "--set", "no value"); }, &text), 2);
  EXPECT_EQ(text, "error: --set: no value\n");
}

TEST(RunProgram, CatchesEverythingElse) {
  std::string text;
  EXPECT_EQ(run([]() -> int { throw std::bad_alloc(); }, &text), 1);
  EXPECT_THAT(text, HasSubstr("error: nf-test: out of memory\nhint: "));
  EXPECT_EQ(run([]() -> int { throw std::runtime_error("odd"); }, &text), 1);
  EXPECT_THAT(text, HasSubstr("error: nf-test: odd\nhint: "));
  EXPECT_EQ(run([]() -> int { throw 7; }, &text), 1);
  EXPECT_EQ(text, "error: nf-test: unknown failure\n");
}

}  // namespace
}  // namespace nf

// Configuration: what is accepted, how every problem is reported at once with file, line, key and
// the nearest known key, and that hash, text and differences follow the values.
#include "core/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "tests/support/paths.h"

namespace nf {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

struct Inner {
  double rho = 0.25;
  void visit(Fields& f) { f("rho", rho, "a nested number"); }
};

struct Options {
  bool fast = false;
  int64_t workers = 2;
  double rate = 0.1;
  std::string mode = "exact";
  std::string path;
  std::vector<int64_t> depths = {1, 2};
  std::vector<double> scales;
  std::vector<std::string> names = {"a", "b"};
  Inner inner;

  void visit(Fields& f) {
    f("fast", fast, "a switch");
    f("workers", workers, "threads", {.affects_result = false, .min = 0, .max = 64});
    f("rate", rate, "a rate", {.min = 0.0});
    f("mode", mode, "a choice", {.one_of = {"exact", "fast"}});
    f("path", path, "a path");
    f("depths", depths, "positive integers", {.min = 1});
    f("scales", scales, "numbers");
    f("names", names, "words");
    f.section("inner", inner);
  }
};

struct Config {
  Options part;
  Fields fields;
  Config() { fields.section("part", part); }
  Config(const Config&) = delete;  // the fields point into part
  Config& operator=(const Config&) = delete;

  void parse(const std::string& text, const std::vector<std::string>& overrides = {}) {
    parse_config_text(text, "run.toml", overrides, fields);
  }
};

// The Error that a parse must throw.
Error parse_error(const std::string& text, const std::vector<std::string>& overrides = {}) {
  Config config;
  try {
    config.parse(text, overrides);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kUsage);
    return e;
  }
  ADD_FAILURE() << "accepted: " << text;
  return Error(ExitCode::kDone, "", "");
}

TEST(Options, ReadsEveryType) {
  Config c;
  c.parse(R"([part]
fast = true
workers = 7
rate = 1
mode = "fast"
path = "/data"
depths = [3, 4]
scales = [1, 0.5]
names = []
[part.inner]
rho = 1e-3
)");
  EXPECT_TRUE(c.part.fast);
  EXPECT_EQ(c.part.workers, 7);
  EXPECT_EQ(c.part.rate, 1.0);  // an integer is a number
  EXPECT_EQ(c.part.mode, "fast");
  EXPECT_EQ(c.part.path, "/data");
  EXPECT_THAT(c.part.depths, ElementsAre(3, 4));
  EXPECT_THAT(c.part.scales, ElementsAre(1.0, 0.5));
  EXPECT_THAT(c.part.names, IsEmpty());
  EXPECT_EQ(c.part.inner.rho, 1e-3);
}

TEST(Options, KeepsDefaultsAndKnowsWhatWasSet) {
  Config c;
  c.parse("[part]\nrate = 0.1\n");
  EXPECT_EQ(c.part.workers, 2);
  EXPECT_TRUE(c.fields.was_set("part.rate"));
  EXPECT_FALSE(c.fields.was_set("part.workers"));
  EXPECT_FALSE(c.fields.was_set("part.absent"));
}

TEST(Options, OneErrorNamesFileLineKeyAndTheNearestKey) {
  const Error e = parse_error("[part]\nrate = 0.5\nworkrs = 3\n");
  EXPECT_EQ(e.where(), "run.toml:3");
  EXPECT_THAT(e.what(), HasSubstr("unknown key part.workrs"));
  EXPECT_THAT(e.what(), HasSubstr("did you mean part.workers?"));
}

TEST(Options, AFarKeyGetsNoGuess) {
  EXPECT_THAT(parse_error("[zebra]\nx = 1\n").what(), Not(HasSubstr("did you mean")));
}

TEST(Options, AllErrorsAtOnceInOrderOfLines) {
  const Error e = parse_error(R"([part]
workers = "two"
rate = -1.0
fats = true
mode = "exakt"
)",
                              {"part.workers=100", "part.rate=much", "nonsense"});
  const std::string text = e.what();
  EXPECT_EQ(e.where(), "run.toml");
  size_t at = 0;
  for (const char* part :
       {"7 errors", "run.toml:2: part.workers must be an integer",
        "run.toml:3: part.rate must be at least 0", "run.toml:4: unknown key part.fats",
        "run.toml:5: part.mode must be one of \"exact\" \"fast\", not \"exakt\"",
        "--set part.workers=100: part.workers must be between 0 and 64",
        "--set part.rate=much: part.rate must be a number", "--set nonsense: expected key=value"}) {
    at = text.find(part, at);
    ASSERT_NE(at, std::string::npos) << part << " is missing or out of place in:\n" << text;
  }
}

TEST(Options, WrongTypesAreRefused) {
  for (const char* line : {"fast = 1", "workers = 1.5", "rate = \"x\"", "mode = 3", "depths = 3",
                           "depths = [1.5]", "scales = [\"a\"]", "names = [1]", "rate = nan"})
    EXPECT_THAT(parse_error(std::string("[part]\n") + line + "\n").what(), HasSubstr("must"))
        << line;
  EXPECT_THAT(parse_error("part = 3\n").what(), HasSubstr("unknown key part"));
}

TEST(Options, RulesHoldForElementsOfLists) {
  EXPECT_THAT(parse_error("[part]\ndepths = [2, 0]\n").what(), HasSubstr("at least 1, not 0"));
}

TEST(Options, BrokenTomlNamesTheLine) {
  EXPECT_EQ(parse_error("[part]\nrate = = 2\n").where(), "run.toml:2");
}

TEST(Options, OverridesWinAndTakeBareWordsForStrings) {
  Config c;
  c.parse("[part]\nmode = \"exact\"\nrate = 3.0\n",
          {"part.mode=fast", "part.path=/a b=c", "part.depths=[9]", "part.rate=0.5",
           "part.inner.rho=2", "part.fast=true"});
  EXPECT_EQ(c.part.mode, "fast");
  EXPECT_EQ(c.part.path, "/a b=c");
  EXPECT_THAT(c.part.depths, ElementsAre(9));
  EXPECT_EQ(c.part.rate, 0.5);
  EXPECT_EQ(c.part.inner.rho, 2.0);
  EXPECT_TRUE(c.part.fast);
  EXPECT_TRUE(c.fields.was_set("part.path"));
}

TEST(Options, UnknownOverridesSuggestAKey) {
  EXPECT_THAT(parse_error("", {"part.rat=1"}).what(), HasSubstr("did you mean part.rate?"));
  EXPECT_THAT(parse_error("", {"part.pth=/x"}).what(), HasSubstr("did you mean part.path?"));
}

TEST(Options, ResolvedTextRoundTrips) {
  Config a;
  a.parse("[part]\nrate = 0.1234567890123456789\npath = 'q\"\\'\nscales = [1, 1e300, 1e-7]\n");
  const std::string text = to_toml(a.fields);
  Config b;
  b.parse(text);
  EXPECT_EQ(b.part.rate, a.part.rate);
  EXPECT_EQ(b.part.path, "q\"\\");
  EXPECT_EQ(b.part.scales, a.part.scales);
  EXPECT_EQ(to_toml(b.fields), text);
  EXPECT_EQ(config_hash(b.fields), config_hash(a.fields));
}

TEST(Options, TheHashFollowsOnlyWhatAffectsTheResult) {
  Config a, same, other;
  same.parse("[part]\nworkers = 9\n");
  other.parse("[part]\nrate = 0.2\n");
  EXPECT_EQ(config_hash(a.fields).size(), 16u);
  EXPECT_EQ(config_hash(a.fields), config_hash(same.fields));
  EXPECT_NE(config_hash(a.fields), config_hash(other.fields));
}

TEST(Options, DifferencesNameKeyOldAndNew) {
  Config before, now;
  before.parse("[part]\nrate = 0.2\nworkers = 5\n");
  now.parse("[part]\nrate = 0.3\ndepths = [1, 2]\n");
  EXPECT_THAT(config_differences(to_toml(before.fields), "old.toml", now.fields),
              ElementsAre("part.rate: 0.2 -> 0.3"));
  EXPECT_THAT(config_differences("[part]\nmode = \"fast\"\n", "old.toml", now.fields),
              ElementsAre("part.mode: \"fast\" -> \"exact\""));
  EXPECT_THROW(config_differences("[", "old.toml", now.fields), Error);
}

TEST(Options, DescribeListsEveryKeyWithItsMeaning) {
  const Config c;
  const std::string text = describe(c.fields);
  for (const auto& field : c.fields.all()) EXPECT_THAT(text, HasSubstr(field.key + " = "));
  EXPECT_THAT(text, HasSubstr("one of \"exact\" \"fast\""));
  EXPECT_THAT(text, HasSubstr("threads; between 0 and 64; may change on resume"));
}

TEST(Options, FilesAreReadAndAMissingOneIsAUsageError) {
  const test::TempDir dir;
  std::ofstream(dir / "run.toml") << "[part]\nrate = 0.75\n";
  Config c;
  parse_config(dir / "run.toml", {}, c.fields);
  EXPECT_EQ(c.part.rate, 0.75);
  try {
    parse_config(dir / "absent.toml", {}, c.fields);
    ADD_FAILURE() << "did not throw";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kUsage);
    EXPECT_EQ(e.where(), (dir / "absent.toml").string());
  }
}

TEST(Nearest, PrefersTheFewestEdits) {
  EXPECT_EQ(nearest("globl", {"global", "windowed"}), "global");
  EXPECT_EQ(nearest("xyz", {"global", "windowed"}), "");
  EXPECT_EQ(nearest("a", {}), "");
}

}  // namespace
}  // namespace nf

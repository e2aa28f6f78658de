// nf-fit as a user calls it: exit codes, keys, the same bytes for permuted rows and any number of
// threads, bad input that only the whole program meets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "core/atomic_file.h"
#include "core/jsonl.h"
#include "tests/support/paths.h"

namespace nf {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

struct Outcome {
  int code;
  std::string out, error;
};

class FitProgram : public testing::Test {
 protected:
  // Runs nf-fit with a shell's words; `before` stands before the program's name.
  Outcome run(const std::string& arguments, const std::string& before = "") {
    std::string command = before;
    command.append(" ").append(quoted(test::program("nf-fit"))).append(" ").append(arguments);
    command.append(" > ").append(quoted(dir / "out")).append(" 2> ").append(quoted(dir / "err"));
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(dir / "out"),
            read_file(dir / "err")};
  }
  Json json(const std::string& arguments) {
    const Outcome o = run(arguments);
    EXPECT_EQ(o.code, 0) << o.error;
    return Json::parse(o.out, nullptr, false);
  }
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(dir / name) << text;
    return quoted(dir / name);
  }
  std::string at(const std::string& name) { return quoted(dir / name); }
  static std::string quoted(const fs::path& path) {
    std::string out(1, '\'');
    return out.append(path.string()).append(1, '\'');
  }
  static std::string table(const std::string& name) {
    return quoted(test::golden("scaling/" + name));
  }
  static std::vector<std::string> sweep_lines() {
    std::istringstream in(read_file(test::golden("scaling/nfnet_like_sweep.csv")));
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }
  static std::string joined(const std::vector<std::string>& lines) {
    std::string text;
    for (const auto& line : lines) text += line + "\n";
    return text;
  }
  // A table "x,loss" from a function.
  template <class F>
  std::string curve(const std::string& name, const F& loss, int points = 20, double span = 1e4) {
    std::string text = "x,loss\n";
    for (int i = 0; i < points; ++i) {
      const double x = 1e6 * std::pow(span, i / (points - 1.0));
      std::ostringstream line;
      line.precision(12);
      line << x << "," << loss(x) << "\n";
      text += line.str();
    }
    return write(name, text);
  }
  test::TempDir dir;
};

TEST_F(FitProgram, ReportOfTheShippedSweep) {
  const Outcome o = run("--input " + table("nfnet_like_sweep.csv") + " --output " + at("report"));
  ASSERT_EQ(o.code, 0) << o.error;
  const Json fit = Json::parse(read_file(dir / "report/fit.json"));
  for (const char* key : {"version", "input", "cells", "frontier", "frontier_law", "law",
                          "lr_trend", "holdout", "rates", "images_per_epoch", "seed", "warnings"})
    EXPECT_TRUE(fit.contains(key)) << key;
  EXPECT_EQ(fit.at("input").at("rows"), 147);
  EXPECT_EQ(fit.at("cells").size(), 36u);
  const std::string html = read_file(dir / "report/report.html");
  for (const char* plot : {"loss_vs_compute", "best_epochs", "best_size", "learning_rate",
                           "learning_curve", "isoflop", "residuals", "hidden_points"}) {
    EXPECT_THAT(html, HasSubstr(std::string("<figure id=\"") + plot + "\">\n<svg"));
    for (const char* kind : {".svg", ".csv", ".gp"})
      EXPECT_GT(fs::file_size(dir / ("report/" + std::string(plot) + kind)), 100u) << plot << kind;
  }
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("src="), std::string::npos);  // nothing is fetched
  EXPECT_THAT(html, HasSubstr("undersampled"));
  EXPECT_THAT(read_file(dir / "report/report.md"), HasSubstr("## Exponents and laws"));
  EXPECT_THAT(html, testing::Not(HasSubstr("nan")));
}

TEST_F(FitProgram, PermutedRowsAndThreadsChangeNoByte) {
  auto lines = sweep_lines();
  ASSERT_EQ(run("--input " + table("nfnet_like_sweep.csv") + " --output " + at("a") +
                " --bootstrap 200 --threads 1")
                .code,
            0);
  std::reverse(lines.begin() + 1, lines.end());
  std::swap(lines[5], lines[60]);
  ASSERT_EQ(run("--input " + write("permuted.csv", joined(lines)) + " --output " + at("b") +
                " --bootstrap 200 --threads 3")
                .code,
            0);
  for (const auto& entry : fs::directory_iterator(dir / "a")) {
    const std::string name = entry.path().filename().string();
    EXPECT_EQ(read_file(entry.path()), read_file(dir / "b" / name)) << name;
  }
}

TEST_F(FitProgram, CrlfBomAndQuotedCommas) {
  auto lines = sweep_lines();
  std::string text = "\xEF\xBB\xBF";
  for (auto line : lines) {
    for (size_t p; (p = line.find("nfnet_f1,")) != std::string::npos;)
      line.replace(p, 9, "\"F1, deep\",");
    text += line + "\r\n";
  }
  ASSERT_EQ(
      run("--input " + write("t.csv", text) + " --output " + at("r") + " --bootstrap 50").code, 0);
  EXPECT_EQ(Json::parse(read_file(dir / "r/fit.json")).at("cells")[6].at("model"), "F1, deep");
}

TEST_F(FitProgram, ExitCodesOfBadTables) {
  const auto lines = sweep_lines();
  const auto report = [&](const std::vector<std::string>& rows) {
    return run("--input " + write("t.csv", joined(rows)) + " --output " + at("r") +
               " --bootstrap 20");
  };
  EXPECT_EQ(report({lines[0]}).code, 3);
  EXPECT_EQ(report({}).code, 3);
  // Too few cells, models and budgets: all three are named.
  const Outcome few = report({lines.begin(), lines.begin() + 13});
  EXPECT_EQ(few.code, 3);
  EXPECT_THAT(few.error, HasSubstr("3 cells (at least 10 are needed), 1 models"));
  auto wrong = lines;
  wrong[3].replace(wrong[3].find("done"), 4, "sort of");
  wrong[7].replace(wrong[7].find("1.6"), 3, "one");
  const Outcome two = report(wrong);
  EXPECT_EQ(two.code, 2);
  EXPECT_THAT(two.error, HasSubstr("t.csv:4:16: status: unknown status 'sort of'"));
  EXPECT_THAT(two.error, HasSubstr("t.csv:8:7: learning_rate: 'one' is not a number"));
  auto other = lines;
  other.push_back(other[1]);
  EXPECT_EQ(report(other).code, 0);  // an identical row counts once
  other.back().replace(other.back().find("2.967724"), 8, "2.967725");
  EXPECT_EQ(report(other).code, 3);
  auto size = lines;
  size[5].replace(size[5].find(",224,"), 5, ",192,");
  EXPECT_EQ(report(size).code, 2);
  EXPECT_EQ(run("--input nowhere.csv --output " + at("r")).code, 2);
  EXPECT_EQ(run("").code, 2);
}

TEST_F(FitProgram, LossesThatAreNoneNeverReachAnOutput) {
  auto lines = sweep_lines();
  lines[3].replace(lines[3].find("2.828764"), 8, "nan");
  lines[7].replace(lines[7].find("2.720376"), 8, "-inf");
  ASSERT_EQ(
      run("--input " + write("t.csv", joined(lines)) + " --output " + at("r") + " --bootstrap 50")
          .code,
      0);
  const std::string text = read_file(dir / "r/fit.json");
  EXPECT_EQ(Json::parse(text).at("input").at("excluded").at("bad_loss"),
            Json::array({"r0003", "r0007"}));
  EXPECT_EQ(text.find("null"), std::string::npos);
  EXPECT_THAT(read_file(dir / "r/report.html"), testing::Not(HasSubstr("nan ")));
}

TEST_F(FitProgram, FolderThatCannotBeWrittenAndFullDisk) {
  write("file", "x");
  const Outcome folder =
      run("--input " + table("nfnet_like_sweep.csv") + " --output " + at("file/report"));
  EXPECT_EQ(folder.code, 1);
  EXPECT_THAT(folder.error, HasSubstr("file/report"));
  // A limit on file sizes stands for the full disk: the write fails in the middle.
  const Outcome full =
      run("--input " + table("nfnet_like_sweep.csv") + " --output " + at("r") + " --bootstrap 20",
          "trap '' XFSZ; ulimit -f 8;");
  EXPECT_EQ(full.code, 1);
  EXPECT_THAT(full.error, HasSubstr("fit.json"));
  if (fs::exists(dir / "r")) {
    for (const auto& entry : fs::directory_iterator(dir / "r"))
      ADD_FAILURE() << "left behind: " << entry.path();
  }
}

TEST_F(FitProgram, CurveKeysPredictionsAndScore) {
  const Json j = json("curve --input " + table("vision_curves_subset.csv") +
                      " --x 'Seen Examples' --y Loss --where Task=inet_10 --where Model=BiT/50/1 "
                      "--where Training=1 --predict-where Training=0 --predict 3e9,1e10 "
                      "--bootstrap 100");
  for (const char* key : {"form", "points", "objective", "parameters", "ci95", "predictions",
                          "rmsle", "regions", "warnings"})
    EXPECT_TRUE(j.contains(key)) << key;
  EXPECT_EQ(j.at("form"), "plc");
  EXPECT_EQ(j.at("points"), 68);
  EXPECT_EQ(j.at("predictions").size(), 264u);
  EXPECT_NEAR(j.at("rmsle").get<double>(), 0.003640, 1e-5);
  EXPECT_EQ(j.at("predictions")[0].at("x"), 3e9);
  for (const auto& p : j.at("predictions")) EXPECT_LT(p.at("lo"), p.at("hi"));
  for (const char* key : {"E", "A", "alpha"}) {
    EXPECT_LE(j.at("ci95").at(key)[0], j.at("parameters").at(key));
    EXPECT_GE(j.at("ci95").at(key)[1], j.at("parameters").at(key));
  }
}

TEST_F(FitProgram, CurvesThatCarryNoLaw) {
  const auto fit = [&](const std::string& file, const std::string& more = "") {
    return run("curve --input " + file + " --x x --y loss --bootstrap 50 " + more);
  };
  const auto power = [](double x) { return 0.3 + 20 * std::pow(x, -0.3); };
  EXPECT_EQ(fit(curve("few.csv", power, 3)).code, 3);
  EXPECT_EQ(fit(curve("few.csv", power, 3), "--form pl").code, 0);
  EXPECT_EQ(fit(curve("few.csv", power, 2), "--form pl").code, 3);
  EXPECT_EQ(fit(curve("few.csv", power, 5), "--form sigmoid").code, 3);
  EXPECT_EQ(fit(curve("few.csv", power, 6), "--form broken").code, 3);
  EXPECT_EQ(fit(write("one.csv", "x,loss\n5,1\n5,2\n5,3\n5,4\n")).code, 3);
  const Outcome narrow = fit(curve("narrow.csv", power, 20, 1.9));
  EXPECT_EQ(narrow.code, 3);
  EXPECT_THAT(narrow.error, HasSubstr("factor 1.9"));
  EXPECT_EQ(fit(write("none.csv", "x,loss\n1,nan\n2,-1\n3,0\n")).code, 3);
  for (const char* form : {"pl", "plc", "sigmoid", "broken", "auto"}) {
    const Outcome rising = fit(curve("rising.csv", [](double x) { return std::pow(x, 0.1); }),
                               std::string("--form ") + form);
    EXPECT_EQ(rising.code, 0) << form << rising.error;
    EXPECT_THAT(rising.out, HasSubstr("no trend")) << form;
    const Json j = Json::parse(rising.out, nullptr, false);
    if (std::string(form) != "broken") {
      EXPECT_EQ(j.at("parameters").at("alpha"), 0.0) << form;
    }
  }
  // A pure power law: its irreducible loss is driven to 0.
  const Json pure =
      json("curve --input " + curve("pure.csv", [](double x) { return 20 * std::pow(x, -0.3); }) +
           " --x x --y loss --bootstrap 50");
  EXPECT_THAT(pure.at("warnings").dump(), HasSubstr("irreducible loss not identified"));
  EXPECT_TRUE(pure.at("ci95").contains("E"));
}

TEST_F(FitProgram, LawIsoflopAndCompareKeys) {
  const Json law = json("law --input " + table("nfnet_like_sweep.csv") +
                        " --size train_flops_per_image --images images_seen --loss heldout_loss "
                        "--where status=done --where learning_rate=0.8 --drop-worst 2 "
                        "--bootstrap 50");
  for (const char* key : {"E", "A", "B", "alpha", "beta"}) {
    EXPECT_TRUE(law.at("parameters").contains(key));
    EXPECT_TRUE(law.at("ci95").contains(key));
  }
  for (const char* key : {"objective", "exponent_size", "exponent_images"})
    EXPECT_TRUE(law.contains(key)) << key;
  const Json iso = json("isoflop --input " + table("isoflop_subset.csv") +
                        " --group flops --size n --loss loss --where "
                        "config=rw/base/long/kaplan/standard/val");
  EXPECT_NEAR(iso.at("exponent").get<double>(), 0.70031033, 1e-6);
  EXPECT_EQ(iso.at("dropped")[0].at("group"), 1.25e16);
  EXPECT_EQ(iso.at("optima").size(), 11u);
  const std::string a = curve("a.csv", [](double x) { return 0.5 + 5 * std::pow(x, -0.3); });
  const std::string b = curve("b.csv", [](double x) { return 0.45 + 20 * std::pow(x, -0.3); });
  const Json cross = json("compare " + a + " " + b +
                          " --x x --y loss --bootstrap 20 --price-trend 10x/5y --budget 1e6 "
                          "--from-year 2026");
  const double x = std::pow(15 / 0.05, 1 / 0.3);
  ASSERT_EQ(cross.at("crossings").size(), 1u);
  EXPECT_NEAR(cross.at("crossings")[0].at("x").get<double>() / x, 1, 0.02);
  EXPECT_NEAR(cross.at("crossings")[0].at("year").get<double>(), 2026 + 5 * std::log10(x / 1e6),
              0.1);
  EXPECT_EQ(cross.at("ahead_at_start"), "A");
  EXPECT_EQ(cross.at("ahead_at_end"), "B");
}

// A device with twice the peak, known by what the user says of it: the plan of twice the hours.
TEST_F(FitProgram, PlansForADeviceOfTheUsersOwn) {
  std::string text;
  for (const std::string& line : sweep_lines())
    text += line + (text.empty() ? ",device" : ",a100") + "\n";
  ASSERT_EQ(run("--input " + write("a100.csv", text) + " --output " + at("a100")).code, 0);
  const std::string plan = "plan --fit " + at("a100/fit.json") + " --json ";
  const Json slow = json(plan + "--device-hours 5000 --device x1 --peak-tflops 100");
  const Json fast = json(plan + "--device-hours 2500 --device x2 --peak-tflops 200");
  EXPECT_DOUBLE_EQ(slow.at("loss").get<double>(), fast.at("loss").get<double>());
  EXPECT_EQ(slow.at("model"), fast.at("model"));
  EXPECT_THAT(fast.at("warnings").dump(), HasSubstr("the peak ratio, unmeasured"));
  EXPECT_EQ(run(plan + "--device-hours 5000 --device x1").code, 2);
}

// A cell that stands in the table is predicted near its own loss; what cannot be said is refused.
TEST_F(FitProgram, PredictsOneRun) {
  ASSERT_EQ(run("--input " + table("nfnet_like_sweep.csv") + " --output " + at("r")).code, 0);
  const std::string predict = "predict --fit " + at("r/fit.json") + " ";
  const Json p = json(predict + "--model nfnet_f3 --epochs 2 --json");
  const Json fit = Json::parse(read_file(dir / "r/fit.json"));
  double measured = 0;
  for (const auto& cell : fit.at("cells"))
    if (cell.at("model") == "nfnet_f3" && cell.at("epochs") == 2.0) measured = cell.at("loss");
  EXPECT_NEAR(std::log(p.at("loss").get<double>() / measured), 0, 0.01);
  EXPECT_LT(p.at("lo90").get<double>(), p.at("loss").get<double>());
  EXPECT_GT(p.at("hi90").get<double>(), p.at("loss").get<double>());
  EXPECT_LT(p.at("lo90").get<double>(), p.at("lo").get<double>()) << "a run scatters round the law";
  EXPECT_EQ(p.at("images").get<double>(), 2 * fit.at("images_per_epoch").get<double>());
  EXPECT_EQ(run(predict + "--model nfnet_f9 --epochs 2").code, 2);
  EXPECT_EQ(run(predict + "--model nfnet_f9=1e13 --epochs 2").code, 0);
  EXPECT_EQ(run(predict + "--model nfnet_f3 --epochs 0").code, 2);
  const Outcome far = run(predict + "--model nfnet_f7 --epochs 1e5");
  EXPECT_EQ(far.code, 2);
  EXPECT_THAT(far.error, HasSubstr("--far"));
}

TEST_F(FitProgram, PlansAndTheirRefusals) {
  ASSERT_EQ(run("--input " + table("nfnet_like_sweep.csv") + " --output " + at("r")).code, 0);
  const std::string plan = "plan --fit " + at("r/fit.json") + " ";
  const Json p = json(plan + "--device-hours 5000 --json");
  for (const char* key : {"model", "epochs", "learning_rate", "learning_rate_grid", "loss", "lo",
                          "hi", "cost_usd", "extrapolated_by", "continuous", "runner_up"})
    EXPECT_TRUE(p.contains(key)) << key;
  EXPECT_EQ(p.at("model"), "nfnet_f3");
  EXPECT_NEAR(p.at("cost_usd").get<double>(), 2425, 0.1);
  EXPECT_EQ(run(plan + "--device-hours 1000000").code, 0);
  const Outcome far = run(plan + "--device-hours 2e7");
  EXPECT_EQ(far.code, 2);
  EXPECT_THAT(far.error, HasSubstr("--far"));
  EXPECT_EQ(run(plan + "--device-hours 2e7 --far").code, 0);
  EXPECT_EQ(run(plan + "--device-hours 0").code, 2);
  EXPECT_EQ(run(plan + "--device-hours -5").code, 2);
  EXPECT_EQ(run(plan + "--device-hours 5000 --models nfnet_f9").code, 2);
  EXPECT_EQ(run(plan + "--device-hours 5000 --device abacus").code, 2);
  EXPECT_EQ(run(plan + "--device-hours 5000 --peak-tflops 100").code, 2);
  EXPECT_EQ(run(plan).code, 2);
  const Json bound = json(plan + "--device-hours 110000 --max-epochs 2 --json");
  EXPECT_LE(bound.at("epochs"), 2.0);
  EXPECT_THAT(bound.at("warnings").dump(), HasSubstr("--max-epochs 2 decides"));
  const Json never = json(plan + "--target-loss 1.5 --json");
  EXPECT_EQ(never.at("reachable"), false);
  EXPECT_THAT(never.at("reason").get<std::string>(), HasSubstr("below the irreducible loss E"));
  // There and back: the budget of a loss gives that loss.
  const Json back = json(plan + "--target-loss 2.25 --json");
  EXPECT_NEAR(back.at("loss").get<double>(), 2.25, 1e-6);
  const Json one = json(plan + "--device-hours 5000 --models nfnet_f0,big=2e12 --json");
  EXPECT_EQ(one.at("model"), "nfnet_f0");
  EXPECT_EQ(one.at("runner_up").at("model"), "big");
  EXPECT_EQ(run("plan --fit " + write("x.json", "{}") + " --device-hours 5").code, 3);
}

}  // namespace
}  // namespace nf

// Reading tables and what bad ones get (section "Bad input" of the study's specification); cells,
// ties, seeds; accounting; the damped trend.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "analysis/accounting.h"
#include "analysis/cells.h"
#include "analysis/csv.h"
#include "analysis/frontier.h"
#include "analysis/lr_trend.h"
#include "core/error.h"
#include "tests/support/paths.h"

namespace nf::analysis {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kHeader =
    "run,model,params,train_flops_per_image,epochs,images_seen,learning_rate,batch,image_size,seed,"
    "train_flops,device_hours,cost_usd,heldout_loss,heldout_top1,status";

// One row; fields that tests vary.
std::string row(const std::string& run, const std::string& loss, const std::string& status = "done",
                const std::string& rate = "1.6", const std::string& seed = "7",
                const std::string& image_size = "224") {
  return run + ",nfnet_f0,71489284,5.7e10,1,4000000," + rate + ",4096," + image_size + "," + seed +
         ",2.28e17,1.5,0.7," + loss + ",," + status;
}

std::string text_of(const std::vector<std::string>& rows, const std::string& header = kHeader) {
  std::string text = header + "\n";
  for (const auto& r : rows) text += r + "\n";
  return text;
}

RunTable read(const std::vector<std::string>& rows) {
  return read_run_table_text(text_of(rows), "t.csv");
}

// The error that `act` throws.
template <class Act>
Error error_of(const Act& act) {
  try {
    act();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was thrown";
  return {ExitCode::kDone, "", ""};
}

TEST(Csv, QuotesCommasBomCrlfAndBlankLines) {
  const std::string text =
      "\xEF\xBB\xBF"
      "a,\"b, c\",d\r\n1,\"x, \"\"y\"\"\",\r\n\r\n2,\"two\nlines\",3\n4,5,6";
  CsvReader reader(text, "t.csv");
  std::vector<std::string_view> f;
  ASSERT_TRUE(reader.next(f));
  EXPECT_THAT(f, ElementsAre("a", "b, c", "d"));
  ASSERT_TRUE(reader.next(f));
  EXPECT_THAT(f, ElementsAre("1", "x, \"y\"", ""));
  EXPECT_EQ(reader.line(), 2);
  ASSERT_TRUE(reader.next(f));
  EXPECT_THAT(f, ElementsAre("2", "two\nlines", "3"));
  EXPECT_EQ(reader.line(), 4);
  ASSERT_TRUE(reader.next(f));
  EXPECT_THAT(f, ElementsAre("4", "5", "6"));
  EXPECT_EQ(reader.line(), 6);
  EXPECT_FALSE(reader.next(f));
}

TEST(Csv, AQuoteNeverClosedNamesItsLine) {
  const Error e = error_of([] {
    const std::string text = "a\n\"open";
    CsvReader reader(text, "t.csv");
    std::vector<std::string_view> f;
    while (reader.next(f)) {
    }
  });
  EXPECT_EQ(e.code(), ExitCode::kUsage);
  EXPECT_EQ(e.where(), "t.csv:2");
}

TEST(Csv, Numbers) {
  EXPECT_EQ(parse_number(" 1.5e3 "), 1500);
  EXPECT_EQ(parse_number("+2"), 2);
  EXPECT_TRUE(std::isnan(*parse_number("nan")));
  EXPECT_TRUE(std::isinf(*parse_number("1e999")));
  for (const char* bad : {"", "abc", "1.5x", "--1", "1 2"})
    EXPECT_FALSE(parse_number(bad).has_value()) << bad;
}

TEST(Csv, ColumnsAndConditions) {
  const test::TempDir dir;
  std::ofstream(dir / "t.csv") << "task,x,loss\na,1,2\nb,3,4\na,5e0,6\n";
  const Columns c = read_columns(dir / "t.csv", {"x", "loss"}, {{"task", "a"}});
  EXPECT_THAT(c.values[0], ElementsAre(1, 5));
  EXPECT_THAT(c.values[1], ElementsAre(2, 6));
  EXPECT_THAT(c.lines, ElementsAre(2, 4));
  EXPECT_EQ(read_columns(dir / "t.csv", {"loss"}, {{"x", "5"}}).values[0].size(), 1u);
  const Error missing = error_of([&] { read_columns(dir / "t.csv", {"los", "y"}, {}); });
  EXPECT_EQ(missing.code(), ExitCode::kUsage);
  EXPECT_THAT(missing.what(), HasSubstr("did you mean 'loss'"));
  EXPECT_THAT(missing.what(), HasSubstr("no column 'y'"));
  EXPECT_THROW(parse_condition("novalue"), Error);
}

TEST(BadInput, EveryFaultAtOnceWithFileLineAndColumn) {
  const Error e = error_of([] {
    read({row("a", "2.5"), row("b", "x"), row("c", "2.4", "finished"), "d,too,short"});
  });
  EXPECT_EQ(e.code(), ExitCode::kUsage);
  EXPECT_EQ(e.where(), "t.csv:3:14");
  EXPECT_THAT(e.what(), HasSubstr("heldout_loss: 'x' is not a number"));
  EXPECT_THAT(e.what(), HasSubstr("t.csv:4:16: status: unknown status 'finished'"));
  EXPECT_THAT(e.what(), HasSubstr("t.csv:5: 3 fields, the header has 16"));
}

TEST(BadInput, MissingColumnsAreNamedTogether) {
  std::string header = kHeader;
  header.replace(header.find("heldout_loss"), 12, "holdout_loss");
  header.replace(header.find("status"), 6, "state");
  const Error e = error_of([&] { read_run_table_text(header + "\n", "t.csv"); });
  EXPECT_EQ(e.code(), ExitCode::kUsage);
  EXPECT_THAT(e.what(), HasSubstr("no column 'heldout_loss'; did you mean 'holdout_loss'?"));
  EXPECT_THAT(e.what(), HasSubstr("no column 'status'"));
}

TEST(BadInput, EmptyTables) {
  for (const std::string& text : {std::string(), std::string(kHeader) + "\n"})
    EXPECT_EQ(error_of([&] { read_run_table_text(text, "t.csv"); }).code(), ExitCode::kData);
  const Error e = error_of([] {
    select_runs(read({row("a", "", "failed"), row("b", "nan"), row("c", "", "running")}));
  });
  EXPECT_EQ(e.code(), ExitCode::kData);
  EXPECT_THAT(e.what(), HasSubstr("1 bad_loss, 1 failed, 1 running"));
}

TEST(BadInput, LossesThatAreNone) {
  const RunSelection s = select_runs(read({row("a", "2.5"), row("b", "nan"), row("c", "inf"),
                                           row("d", "0"), row("e", "-1"), row("f", "")}));
  EXPECT_EQ(s.used.size(), 1u);
  EXPECT_THAT(s.excluded.at("bad_loss"), ElementsAre("b", "c", "d", "e", "f"));
}

TEST(BadInput, RunNamesTwice) {
  const RunTable twice = read({row("a", "2.5"), row("a", "2.5")});
  EXPECT_EQ(twice.rows, 2);
  EXPECT_EQ(twice.runs.size(), 1u);
  EXPECT_THAT(select_runs(twice).excluded.at("duplicate"), ElementsAre("a"));
  const Error e = error_of([] { read({row("a", "2.5"), row("b", "2.5"), row("a", "2.6")}); });
  EXPECT_EQ(e.code(), ExitCode::kData);
  EXPECT_THAT(e.what(), HasSubstr("line 2 and in line 4"));
}

TEST(BadInput, RunsMeasuredDifferentlyAreRefused) {
  const std::string header = std::string(kHeader) + ",loss_kind,heldout_fingerprint";
  const auto with = [&](const std::string& kind, const std::string& set) {
    return read_run_table_text(
        text_of({row("a", "2.5") + ",softmax,f1", row("b", "2.4") + "," + kind + "," + set},
                header),
        "t.csv");
  };
  EXPECT_NO_THROW(select_runs(with("softmax", "f1")));
  for (const RunTable& t : {with("sigmoid", "f1"), with("softmax", "f2")}) {
    const Error e = error_of([&] { select_runs(t); });
    EXPECT_EQ(e.code(), ExitCode::kUsage);
    EXPECT_THAT(e.what(), HasSubstr("in a"));
    EXPECT_THAT(e.what(), HasSubstr("in b"));
  }
  const RunTable sizes = read({row("a", "2.5"), row("b", "2.4", "done", "1.6", "7", "256")});
  EXPECT_EQ(error_of([&] { select_runs(sizes); }).code(), ExitCode::kUsage);
}

TEST(BadInput, RunsThatMissedSamplesAreLeftOut) {
  const std::string header = std::string(kHeader) + ",images_missed";
  const RunTable t = read_run_table_text(
      text_of({row("a", "2.5") + ",0", row("b", "2.4") + ",4000", row("c", "2.3") + ",4001"},
              header),
      "t.csv");
  EXPECT_THAT(select_runs(t).excluded.at("undersampled"), ElementsAre("c"));
  EXPECT_EQ(select_runs(t, 0.01).used.size(), 3u);
  EXPECT_EQ(select_runs(t, 0).used.size(), 1u);
}

TEST(RunTableHash, OrderOfRowsAndColumnsDoesNotMatterValuesDo) {
  const auto a = read({row("a", "2.5"), row("b", "2.4")});
  EXPECT_EQ(a.hash, read({row("b", "2.4"), row("a", "2.5")}).hash);
  EXPECT_NE(a.hash, read({row("a", "2.5"), row("b", "2.41")}).hash);
}

TEST(Cells, BestRateTiesSeedsAndDivergence) {
  const RunSelection s = select_runs(
      read({row("a1", "2.50", "done", "0.8", "1"), row("a2", "2.60", "done", "0.8", "2"),
            row("b1", "2.40", "done", "1.6", "1"), row("b2", "2.44", "done", "1.6", "2"),
            row("c", "", "diverged", "3.2", "1")}));
  const auto cells = make_cells(s, RateGrid{});
  ASSERT_EQ(cells.size(), 1u);
  const Cell& cell = cells[0];
  EXPECT_EQ(cell.learning_rate(), 1.6);
  EXPECT_NEAR(cell.loss(), std::sqrt(2.40 * 2.44), 1e-12);
  EXPECT_GT(cell.trials[cell.best].seed_spread, 0);
  EXPECT_TRUE(cell.bracketed);  // the diverged neighbour closes its side
  EXPECT_FALSE(cell.refined);
  EXPECT_NEAR(cell.log2_rate, std::log2(1.6), 1e-12);

  const auto tie = make_cells(
      select_runs(read({row("a", "2.5", "done", "0.8"), row("b", "2.5", "done", "1.6")})),
      RateGrid{});
  EXPECT_EQ(tie[0].learning_rate(), 0.8);  // the smaller rate
  EXPECT_FALSE(tie[0].bracketed);
}

TEST(Cells, ParabolaFindsTheOptimumBetweenNotches) {
  const double best = 0.3;  // log2
  std::vector<std::string> rows;
  for (const double rate : {0.4, 0.8, 1.6, 3.2}) {
    const double off = std::log2(rate) - best;
    rows.push_back(row("r" + std::to_string(rate), std::to_string(2.5 * std::exp(0.02 * off * off)),
                       "done", std::to_string(rate)));
  }
  const auto cells = make_cells(select_runs(read(rows)), RateGrid{});
  EXPECT_TRUE(cells[0].refined);
  EXPECT_NEAR(cells[0].log2_rate, best, 1e-4);
}

TEST(Frontier, StrictlyBetterThanAllOfEqualOrSmallerCompute) {
  std::vector<analysis::Run> runs(5);
  const double flops[] = {1, 1, 2, 3, 4}, loss[] = {3.0, 2.9, 2.9, 2.8, 2.85};
  for (size_t i = 0; i < 5; ++i) {
    runs[i].run = std::string(1, static_cast<char>('a' + i));
    runs[i].train_flops = flops[i];
    runs[i].device_hours = 5 - flops[i];
    runs[i].heldout_loss = loss[i];
  }
  Frontier f = find_frontier(runs);
  ASSERT_EQ(f.runs.size(), 2u);
  EXPECT_EQ(f.runs[0].run, "b");
  EXPECT_EQ(f.runs[1].run, "d");
  EXPECT_FALSE(f.device_hours);
  for (analysis::Run& run : runs) run.device = "h100";
  EXPECT_TRUE(find_frontier(runs).device_hours);
  EXPECT_FALSE(find_frontier(runs, /*flops=*/true).device_hours);
  runs[2].device = "a100";  // mixed devices: FLOPs
  EXPECT_FALSE(find_frontier(runs).device_hours);
}

TEST(RateTrends, CapFewCellsAndWarnings) {
  std::vector<RatePoint> points;
  for (const double size : {1e10, 2e10, 4e10, 8e10})
    for (const double epochs : {1.0, 2.0, 4.0, 8.0}) {
      const double f = std::log2(size / 1e10), e = std::log2(epochs);
      points.push_back(
          {size, epochs, std::min(std::log2(1.6), 0.7 - 0.1 * f - 0.3 * e - 0.05 * f * e)});
    }
  const RateTrend t = fit_rate_trend(points);
  EXPECT_NEAR(t.coefficients[0], 0.7, 1e-6);
  EXPECT_NEAR(t.coefficients[3], -0.05, 1e-6);
  EXPECT_EQ(t.log2_rate(1e10, 0.1), std::log2(1.6));
  EXPECT_TRUE(rate_trend_warnings(t).empty());
  const std::vector<RatePoint> five(points.begin() + 3, points.begin() + 8);
  EXPECT_EQ(fit_rate_trend(five).coefficients[3], 0);  // too few cells for the product
  const std::vector<RatePoint> one(points.begin() + 3, points.begin() + 4);
  EXPECT_EQ(fit_rate_trend(one).log2_rate(1e10, 8), std::log2(1.6));
  EXPECT_EQ(rate_trend_warnings(fit_rate_trend(one)).size(), 1u);
  for (auto& p : points) p.log2_rate = -2 + 0.2 * std::log2(p.epochs);
  EXPECT_THAT(rate_trend_warnings(fit_rate_trend(points))[0], HasSubstr("rises with epochs"));
}

TEST(RateTrends, DampingHoldsFewCellsBack) {
  std::vector<RatePoint> points = {{1e10, 1, 0.0}, {1e10, 2, -1.0}};
  const DampedTrend weak = fit_damped_trend(points);
  EXPECT_GT(weak.c2, -0.5);  // two cells say -1, the damping holds it near 0
  EXPECT_LT(weak.c2, 0);
  // The penalised normal equations of one slope: c2 = Sxy / (Sxx + 3).
  EXPECT_NEAR(weak.c2, -0.5 / (0.5 + 3), 1e-12);
  EXPECT_NEAR(fit_damped_trend(points, 0).c2, -1, 1e-9);
}

TEST(Accounting, UtilisationConversionsAndNames) {
  // The published run: F7+ at 224 px, 8 epochs of 4e9 images in 110,000 core-hours.
  const double flops = 6.6708e11 * 8 * 4e9;
  EXPECT_NEAR(flops, 2.13e22, 0.01e22);
  EXPECT_NEAR(model_flops_utilization(flops, 110000, find_device("tpu-v4")->peak_tflops), 0.39,
              0.005);
  EXPECT_NEAR(model_flops_utilization(5.6925e10 * 1e9, 400, 137.5), 0.29, 0.005);
  EXPECT_EQ(train_flops_per_image(1e9), 6e9);
  EXPECT_EQ(train_flops_per_image(1e9, true), 12e9);
  const Device v3 = *find_device("TPU-v3 core"), v4 = *find_device("tpu_v4");
  EXPECT_EQ(chip_hours(110000, v4), 55000);
  EXPECT_NEAR(convert_hours(v3, v4).hours_per_hour, 0.565, 1e-12);
  EXPECT_TRUE(convert_hours(v3, v4).measured);
  EXPECT_NEAR(210000 * convert_hours(v3, v4).hours_per_hour, 120000, 0.015 * 120000);
  EXPECT_FALSE(convert_hours(v4, *find_device("NVIDIA H100 SXM")).measured);
  EXPECT_EQ(find_device("abacus"), nullptr);
}

}  // namespace
}  // namespace nf::analysis

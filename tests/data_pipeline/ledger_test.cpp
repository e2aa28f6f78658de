// The ledger and its auditor: digests add up in any order, files survive torn lines, and every
// planted fault of a run's record is found: a gap, an overlap, a wrong sample, a lost or repeated
// image in the trace, a short run called done.
#include "data_pipeline/ledger.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <sstream>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data_pipeline/audit_run.h"
#include "tests/support/paths.h"

namespace nf::data {
namespace {

RunOrder small_run(Shuffle shuffle = Shuffle::kGlobal, uint64_t repeat = 1) {
  RunOrder order;
  order.sampler = {.samples = 103,
                   .seed = 5,
                   .shuffle = shuffle,
                   .repeat = repeat,
                   .shard_samples = 10,
                   .window_shards = 3};
  order.batch_size = 16;
  order.micro_batches = 4;
  order.end_position = 103 * 3 * repeat;
  order.fingerprint = "abc";
  return order;
}

std::vector<LedgerLine> lines_of(const RunOrder& order) {
  const Sampler sampler(order.sampler);
  std::vector<LedgerLine> lines;
  for (uint64_t begin = 0; begin < order.end_position; begin += order.batch_size) {
    const uint64_t end = std::min(begin + order.batch_size, order.end_position);
    std::vector<uint64_t> samples(end - begin);
    sampler.fill(begin, samples);
    lines.push_back({lines.size() + 1, begin, end, batch_digest(begin, samples)});
  }
  return lines;
}

void write_ledger(const std::filesystem::path& dir, const std::vector<LedgerLine>& lines) {
  std::ofstream out(dir / "ledger.jsonl");
  for (const LedgerLine& line : lines) out << to_json(line).dump() << "\n";
}

// Two ranks, each taking half of every batch.
void write_traces(const std::filesystem::path& dir, const RunOrder& order, uint64_t first_step,
                  uint64_t last_step, uint64_t ranks) {
  const Sampler sampler(order.sampler);
  for (uint64_t rank = 0; rank < ranks; ++rank) {
    TraceWriter trace(dir, rank);
    for (uint64_t step = first_step; step < last_step; ++step) {
      const uint64_t from = step * order.batch_size + rank * order.batch_size / ranks;
      const uint64_t to = step * order.batch_size + (rank + 1) * order.batch_size / ranks;
      std::vector<uint64_t> samples(std::min(to, order.end_position) -
                                    std::min(from, order.end_position));
      sampler.fill(from, samples);
      trace.append(step + 1, from, sampler.positions_per_epoch(), samples);
    }
  }
}

TEST(Ledger, DigestOfABatchIsTheSumOfItsPartsAndSeesEveryChange) {
  std::vector<uint64_t> samples = {7, 3, 9, 1, 4};
  const uint64_t whole = batch_digest(100, samples);
  const std::span<const uint64_t> all(samples);
  EXPECT_EQ(batch_digest(100, all.first(2)) + batch_digest(102, all.subspan(2)), whole);
  std::swap(samples[0], samples[4]);
  EXPECT_NE(batch_digest(100, samples), whole);
  EXPECT_NE(batch_digest(101, samples), batch_digest(100, samples));
  EXPECT_EQ(sample_digest(0, 0), 0xDFF563FFB9B341E0u);
  EXPECT_EQ(sample_digest(1, 2), 0xFE9EAD07514AE239u);
}

TEST(Ledger, LinesAndRunOrderRoundTrip) {
  const LedgerLine line{17, 100, 200, 0x00ABCDEF01234567};
  EXPECT_EQ(ledger_line_from_json(Json::parse(to_json(line).dump()), "x"), line);
  const test::TempDir dir;
  const RunOrder order = small_run(Shuffle::kWindowed, 2);
  write_run_order(dir.path(), order);
  EXPECT_EQ(to_json(read_run_order(dir.path())), to_json(order));
}

TEST(Ledger, DamagedJsonIsADataError) {
  const auto fails = [](const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& e) {
      return e.code() == ExitCode::kData;
    }
    return false;
  };
  for (const char* text :
       {"[]", "{}", R"({"step":-1,"begin":0,"end":1,"digest":"0000000000000000"})",
        R"({"step":1,"begin":0,"end":1,"digest":"00"})",
        R"({"step":1,"begin":0,"end":1,"digest":5})",
        R"({"step":1,"begin":0.5,"end":1,"digest":"0000000000000000"})",
        R"({"step":1,"begin":0,"end":1,"digest":"000000000000000g"})"}) {
    EXPECT_TRUE(fails([&] { ledger_line_from_json(Json::parse(text), "x"); })) << text;
    EXPECT_TRUE(fails([&] { run_order_from_json(Json::parse(text), "x"); })) << text;
  }
  const test::TempDir dir;
  EXPECT_TRUE(fails([&] { read_run_order(dir.path()); }));
  EXPECT_TRUE(fails([&] { audit_run(dir.path(), {}); }));
  write_run_order(dir.path(), small_run());
  EXPECT_TRUE(fails([&] { audit_run(dir.path(), {}); })) << "no ledger";
}

TEST(Ledger, WholeFilesReadAsLineByLine) {
  const test::TempDir dir;
  const auto lines = lines_of(small_run());
  write_ledger(dir.path(), lines);
  const auto file = dir / "ledger.jsonl";
  EXPECT_EQ(read_ledger(file), lines);
  const std::string whole = read_file(file);
  for (const char* tail : {"{", "{\"step\":21,", "{\"step\":21,\"begin\":320"}) {
    write_file_atomic(file, whole + tail);
    EXPECT_EQ(read_ledger(file), lines) << "torn";
    write_file_atomic(file, whole + tail + "\n");
    EXPECT_EQ(read_ledger(file), lines) << "torn, the newline of another write behind it";
  }
  // Other software's JSON of the same line.
  write_file_atomic(file, whole + R"( { "digest" : "00000000000000fF", "end": 7, "more": [1, {}],)"
                                  R"( "begin":5,"step":9 } )"
                                  "\n");
  EXPECT_EQ(read_ledger(file).back(), (LedgerLine{9, 5, 7, 255}));
  for (const char* bad : {"nonsense", "{}", R"({"step":1,"begin":0,"end":1,"digest":"0"})",
                          R"({"step":1,"step":2,"begin":0,"digest":"0000000000000000"})"}) {
    write_file_atomic(file, std::string(bad) + "\n" + whole);
    try {
      read_ledger(file);
      FAIL() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kData);
      EXPECT_TRUE(e.where().ends_with("ledger.jsonl:1")) << e.where();
    }
  }
}

TEST(Ledger, TraceLinesAndTornTail) {
  const test::TempDir dir;
  const std::vector<uint64_t> samples = {8, 2};
  { TraceWriter(dir.path(), 3).append(5, 102, 103, samples); }
  std::ofstream(dir / "trace/rank_00003.tsv", std::ios::app) << "6\t10";
  { TraceWriter(dir.path(), 3).append(6, 104, 103, samples); }
  EXPECT_EQ(read_file(dir / "trace/rank_00003.tsv"),
            "5\t102\t0\t8\n5\t103\t1\t2\n6\t104\t1\t8\n6\t105\t1\t2\n");
}

TEST(Audit, AWholeRunPassesInEveryOrder) {
  for (const Shuffle shuffle : {Shuffle::kNone, Shuffle::kGlobal, Shuffle::kWindowed}) {
    for (const uint64_t repeat : {1u, 2u}) {
      const RunOrder order = small_run(shuffle, repeat);
      const AuditReport report = audit_ledger(order, lines_of(order), {});
      EXPECT_TRUE(report.passed()) << to_json(report);
      EXPECT_TRUE(report.complete);
      EXPECT_EQ(report.epochs, 3.0);
      EXPECT_EQ(report.digests_checked, report.steps);
    }
  }
}

TEST(Audit, PlantedFaultsOfTheLedgerAreFound) {
  const RunOrder order = small_run();
  const auto broken = [&](const std::function<void(std::vector<LedgerLine>&)>& damage) {
    auto lines = lines_of(order);
    damage(lines);
    return audit_ledger(order, lines, {});
  };
  using Lines = std::vector<LedgerLine>;
  AuditReport r = broken([](Lines& l) { l.erase(l.begin() + 3); });
  EXPECT_FALSE(r.passed());
  EXPECT_EQ(r.missed, 16u);
  r = broken([](Lines& l) { l.insert(l.begin() + 3, l[3]); });
  EXPECT_FALSE(r.passed());
  EXPECT_EQ(r.repeated, 16u);
  r = broken([](Lines& l) { l[2].begin -= 1; });
  EXPECT_FALSE(r.passed());
  EXPECT_EQ(r.repeated, 1u);
  r = broken([](Lines& l) { l[2].digest ^= 1; });
  EXPECT_EQ(r.digests_wrong, 1u);
  EXPECT_FALSE(r.passed());
  r = broken([](Lines& l) { std::swap(l[2], l[3]); });
  EXPECT_FALSE(r.passed());
  EXPECT_EQ(r.missed, 0u);
  r = broken([](Lines& l) { l[5].step = 9; });
  EXPECT_FALSE(r.passed());
  r = broken([](Lines& l) { l.back().end += 1000000000000; });
  EXPECT_FALSE(r.passed());
  r = broken([](Lines& l) { l.resize(4); });
  EXPECT_TRUE(r.passed()) << "a run in progress is not a fault";
  EXPECT_FALSE(r.complete);
}

TEST(Audit, AnotherSeedOrDataSetIsFoundByTheDigests) {
  const auto lines = lines_of(small_run());
  RunOrder order = small_run();
  order.sampler.seed = 6;
  EXPECT_FALSE(audit_ledger(order, lines, {}).passed());
  EXPECT_TRUE(audit_ledger(order, lines, {.digests = AuditOptions::Digests::kNone}).passed());
  AuditOptions sample{.digests = AuditOptions::Digests::kSample, .sampled_steps = 3};
  const AuditReport report = audit_ledger(order, lines, sample);
  EXPECT_EQ(report.digests_checked, 3u);
  EXPECT_EQ(report.digests_wrong, 3u);
}

TEST(Audit, TraceWithReplayedStepsOnOtherRanksPasses) {
  const test::TempDir dir;
  const RunOrder order = small_run();
  write_run_order(dir.path(), order);
  write_ledger(dir.path(), lines_of(order));
  write_traces(dir.path(), order, 0, 9, 2);   // killed after step 9
  write_traces(dir.path(), order, 6, 14, 4);  // continued from step 6 on four ranks, killed
  write_traces(dir.path(), order, 10, 20, 1);
  const AuditReport report = audit_run(dir.path(), {});
  EXPECT_TRUE(report.passed()) << to_json(report);
  EXPECT_TRUE(report.traced);
  EXPECT_EQ(report.trace_replayed, (9u - 6u + 14u - 10u) * 16u);
  for (const auto& histogram : report.trace_histogram) {
    EXPECT_EQ(histogram, (std::vector<uint64_t>{0, 103, 0}));
  }
}

TEST(Audit, LostRepeatedAndForeignImagesOfATraceAreFound) {
  const RunOrder order = small_run();
  const auto audit = [&](const std::function<void(std::vector<std::string>&)>& damage) {
    const test::TempDir dir;
    write_run_order(dir.path(), order);
    write_ledger(dir.path(), lines_of(order));
    write_traces(dir.path(), order, 0, 20, 1);
    std::vector<std::string> lines;
    std::istringstream text(read_file(dir / "trace/rank_00000.tsv"));
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    damage(lines);
    std::ofstream out(dir / "trace/rank_00000.tsv");
    for (const auto& line : lines) out << line << "\n";
    out.close();
    return audit_run(dir.path(), {});
  };
  using Lines = std::vector<std::string>;
  EXPECT_TRUE(audit([](Lines&) {}).passed());
  AuditReport r = audit([](Lines& l) { l.erase(l.begin() + 50); });
  EXPECT_FALSE(r.passed());
  EXPECT_EQ(r.missed, 1u);
  // Position 50 named the sample of position 51: one image lost, one seen twice.
  r = audit([](Lines& l) {
    l[50] = l[50].substr(0, l[50].rfind('\t')) + l[51].substr(l[51].rfind('\t'));
  });
  EXPECT_FALSE(r.passed());
  EXPECT_EQ(r.missed, 1u);
  EXPECT_EQ(r.repeated, 1u);
  EXPECT_FALSE(audit([](Lines& l) { l[7] = "hello"; }).passed());
  EXPECT_FALSE(audit([](Lines& l) { l[7] = "1\t7\t0\t99999999"; }).passed());
  EXPECT_TRUE(audit([](Lines& l) { l.push_back("99\t5000\t48\t3"); }).passed()) << "uncommitted";
}

TEST(Audit, AResultOfAnUnfinishedLedgerIsAFault) {
  const test::TempDir dir;
  const RunOrder order = small_run();
  auto lines = lines_of(order);
  lines.pop_back();
  write_run_order(dir.path(), order);
  write_ledger(dir.path(), lines);
  EXPECT_TRUE(audit_run(dir.path(), {}).passed());
  write_file_atomic(dir / "result.json", "{}");
  EXPECT_FALSE(audit_run(dir.path(), {}).passed());
}

}  // namespace
}  // namespace nf::data

// The trainer's small parts: agreement on failures, run directory, accounting, TensorBoard records,
// model metadata.
#include <gtest/gtest.h>

#include <cstring>

#include "core/hash.h"
#include "core/jsonl.h"
#include "tests/support/process.h"
#include "trainer/agreement.h"
#include "trainer/comm/threads.h"
#include "trainer/model_metadata.h"
#include "trainer/run_config.h"
#include "trainer/run_dir.h"
#include "trainer/tensorboard.h"

namespace nf::train {
namespace {

TEST(Agreement, AFailureOnOneRankIsEverybodysError) {
  ThreadsGroup group(4, 30);
  std::array<std::string, 4> seen;
  group.run([&](Communicator& comm) {
    try {
      together(comm, [&] {
        if (comm.rank() >= 2)
          throw Error(ExitCode::kData, "shard-" + std::to_string(comm.rank()), "is gone", "look");
      });
    } catch (const AgreedError& e) {
      seen[static_cast<size_t>(comm.rank())] = e.where() + "|" + e.what() + "|" + e.hint() + "|" +
                                               std::to_string(static_cast<int>(e.code()));
    }
  });
  for (const auto& s : seen) EXPECT_EQ(s, "rank 2: shard-2|is gone|look|3");
}

TEST(Agreement, NoFailureNoError) {
  ThreadsGroup group(3, 30);
  std::array<std::string, 3> text;
  group.run([&](Communicator& comm) {
    int calls = 0;
    on_root(comm, [&] { ++calls; });
    EXPECT_EQ(calls, comm.rank() == 0 ? 1 : 0);
    text[static_cast<size_t>(comm.rank())] =
        broadcast_string(comm, comm.rank() == 0 ? "hello" : "other");
  });
  for (const auto& t : text) EXPECT_EQ(t, "hello");
}

TEST(Agreement, EveryRanksTextInOrder) {
  ThreadsGroup group(3, 30);
  group.run([&](Communicator& comm) {
    const std::string mine(static_cast<size_t>(comm.rank()) * 2,
                           static_cast<char>('a' + comm.rank()));
    EXPECT_EQ(gather_strings(comm, mine), (std::vector<std::string>{"", "bb", "cccc"}));
  });
}

TEST(RunDirectory, OneOwnerAtATime) {
  const test::TempDir temp;
  {
    const RunDirectory first(temp / "run", 0);
    try {
      const RunDirectory second(temp / "run", 0.1);
      FAIL() << "two owners";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::kUsage);
      EXPECT_NE(std::string(e.what()).find(std::to_string(getpid())), std::string::npos);
    }
  }
  EXPECT_NO_THROW(RunDirectory(temp / "run", 0));
}

// Where locks do not reach other hosts both jobs get it; the newer one keeps it.
TEST(RunDirectory, TheOneThatWasTakenOverKnows) {
  const test::TempDir temp;
  const RunDirectory first(temp / "run", 0);
  EXPECT_TRUE(first.is_owner());
  EXPECT_NO_THROW(first.check_owner());
  std::filesystem::remove(temp / "run/lock");  // another file, another lock
  EXPECT_TRUE(first.is_owner());
  const RunDirectory second(temp / "run", 0);
  EXPECT_TRUE(second.is_owner());
  EXPECT_FALSE(first.is_owner());
  EXPECT_THROW(first.check_owner(), Error);
}

TEST(RunDirectory, RuntimeKeysMayChangeAndResultKeysMayNot) {
  const test::TempDir temp;
  RunDirectory directory(temp / "run", 0);
  RunConfig config;
  config.data.path = "x";
  directory.claim(config);
  config.data.workers = 7;
  config.data.read = "mmap";
  config.checkpoint.every_steps = 3;
  EXPECT_NO_THROW(directory.claim(config));
  config.loss.label_smoothing = 0.2;
  try {
    directory.claim(config);
    FAIL() << "accepted another run's config";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("loss.label_smoothing: 0.0 -> 0.2"), std::string::npos)
        << e.what();
    EXPECT_EQ(std::string(e.what()).find("data.workers"), std::string::npos) << e.what();
  }
}

TEST(Accounting, AddsSessionsWithTheirRanksAndKeepsWhatWasCutOff) {
  const test::TempDir temp;
  {
    JsonlWriter w(temp / "m.jsonl");
    w.append({{"kind", "start"}, {"time", 100.0}, {"ranks", 2}, {"device_seconds_before", 0.0}});
    w.append({{"kind", "train"},
              {"step", 1},
              {"time", 110.0}});  // 20 device-seconds; 5 s more were cut off
    w.append({{"kind", "start"}, {"time", 200.0}, {"ranks", 4}, {"device_seconds_before", 30.0}});
    w.append({{"kind", "train"}, {"step", 2}, {"time", 201.5}});
  }
  const Accounting a = read_accounting(temp / "m.jsonl");
  EXPECT_EQ(a.sessions, 2);
  EXPECT_DOUBLE_EQ(a.device_seconds, 36.0);
  EXPECT_EQ(read_accounting(temp / "none.jsonl").sessions, 0);
}

// An independent reader of the record framing: lengths and masked checksums must be right, or
// TensorBoard skips the file.
TEST(TensorBoard, RecordsAreWellFormed) {
  const test::TempDir temp;
  {
    EventFile events(temp / "tb", 5);
    events.add(5, {{"train/loss", 1.5}, {"train/lr", 0.25}});
  }
  std::string bytes;
  for (const auto& e : std::filesystem::directory_iterator(temp / "tb"))
    bytes = test::slurp(e.path());
  const auto masked = [](std::string_view s) {
    const uint32_t c = crc32c(as_bytes(s));
    return ((c >> 15) | (c << 17)) + 0xa282ead8u;
  };
  size_t at = 0, records = 0;
  std::string last;
  while (at < bytes.size()) {
    uint64_t length = 0;
    uint32_t crc = 0;
    std::memcpy(&length, &bytes[at], 8);
    std::memcpy(&crc, &bytes[at + 8], 4);
    EXPECT_EQ(crc, masked(std::string_view(bytes).substr(at, 8)));
    ASSERT_LE(at + 16 + length, bytes.size());
    last = bytes.substr(at + 12, length);
    std::memcpy(&crc, &bytes[at + 12 + length], 4);
    EXPECT_EQ(crc, masked(last));
    at += 16 + length;
    ++records;
  }
  EXPECT_EQ(records, 3u);  // version, session start, scalars
  const float loss = 1.5f;
  EXPECT_NE(last.find("train/loss"), std::string::npos);
  EXPECT_NE(last.find(std::string(reinterpret_cast<const char*>(&loss), 4)), std::string::npos);
}

TEST(ModelMetadata, DescribesAnyNetAndGivesItBack) {
  ModelConfig config;
  config.name = "nfnet_micro";
  config.depths = {1, 2, 3, 1};
  config.widths = {32, 64, 96, 128};
  config.flavour = "timm";
  const model::NfnetSpec spec = model_spec(config, 17);
  const model::NfnetSpec back = described_model(describe_model(spec, 48), "f", "", "", 0);
  EXPECT_EQ(back.depths, spec.depths);
  EXPECT_EQ(back.widths, spec.widths);
  EXPECT_EQ(back.stem_channels, spec.stem_channels);
  EXPECT_EQ(back.classes, 17);
  EXPECT_EQ(back.flavour, model::Flavour::kTimm);
  EXPECT_THROW(described_model({}, "f", "", "", 0), Error);
  EXPECT_EQ(described_model({}, "f", "nfnet_f0", "timm", 5).classes, 5);
}

TEST(RunConfig, StepRangesOfTheProfile) {
  EXPECT_FALSE(parse_step_range("").has_value());
  for (const char* text : {"20..25", "steps 20..25"}) {
    const auto r = parse_step_range(text);
    ASSERT_TRUE(r.has_value());
    EXPECT_EQ(r->first, 20u);
    EXPECT_EQ(r->last, 25u);
  }
  for (const char* wrong : {"20", "20..", "..5", "0..3", "5..4", "a..b", "1..2..3", "-1..2",
                            "steps", "steps 20", "steps ..5", "steps20..25"})
    EXPECT_THROW(parse_step_range(wrong), Error) << wrong;
}

TEST(RunConfig, ReportsProblemsThatSpanKeysTogether) {
  RunConfig config;
  config.batch.size = 10;
  config.batch.micro_batches = 3;
  config.model.name = "nfnet_f9";
  try {
    check_run_config(config);
    FAIL();
  } catch (const Error& e) {
    const std::string text = e.what();
    for (const char* part : {"3 errors", "data.path", "batch.micro_batches 3", "nfnet_f"})
      EXPECT_NE(text.find(part), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace nf::train

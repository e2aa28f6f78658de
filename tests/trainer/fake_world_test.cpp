// A rehearsed rank: its messages are those of the exchange's formula, its plan covers every step,
// and nothing is left behind.
#include "trainer/fake_world.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/tiny_run.h"
#include "trainer/agreement.h"
#include "trainer/comm/fake.h"
#include "trainer/comm/grad_reducer.h"

namespace nf::train {
namespace {
namespace fs = std::filesystem;

size_t rehearsal_folders() {
  size_t n = 0;
  for (const auto& entry : fs::directory_iterator(fs::temp_directory_path()))
    n += entry.path().filename().string().starts_with("nf-rehearsal-") ? 1 : 0;
  return n;
}

TEST(FakeCommunicator, OthersAreAsThisOne) {
  FakeCommunicator comm(1, 3);
  std::vector<int64_t> sum = {5, -2};
  comm.all_reduce_sum(sum);
  EXPECT_EQ(sum, (std::vector<int64_t>{15, -6}));
  const std::string mine = "ab";
  std::string all(6, '.');
  comm.all_gather(reinterpret_cast<const std::byte*>(mine.data()),
                  reinterpret_cast<std::byte*>(all.data()), std::vector<size_t>{2, 2, 2});
  EXPECT_EQ(all, "ababab");
  const Traffic t = comm.take_traffic();
  EXPECT_EQ(t.collectives, 2u);
  EXPECT_EQ(t.messages, 1u + 2u);
  EXPECT_EQ(t.bytes, 16u + 4u);
  EXPECT_EQ(comm.take_traffic().messages, 0u);
  EXPECT_EQ(gather_strings(comm, "host"), (std::vector<std::string>{"host", "host", "host"}));
}

// Every rank sends its slice of every bucket to every other, twice: gradients there, sums back.
TEST(FakeCommunicator, AnExactSumsTraffic) {
  constexpr int kRanks = 64;
  constexpr size_t kElements = 64 * 16 * 10, kBucket = 64 * 16 * 4;  // slices of equal length
  FakeCommunicator comm(0, kRanks);
  GradReducer reducer(comm, kRanks, kElements, {.bucket_elements = kBucket});
  comm.take_traffic();
  const auto buffer = reducer.buffer();
  std::fill(buffer.begin(), buffer.end(), 1.0f);
  reducer.add(0);
  const auto sum = reducer.finish();
  EXPECT_EQ(sum[0], kRanks * 1.0f);
  EXPECT_EQ(sum[kElements - 1], kRanks * 1.0f);
  const Traffic t = comm.take_traffic();
  EXPECT_EQ(t.messages, 2u * 3 * (kRanks - 1));
  EXPECT_EQ(t.bytes, 2u * sizeof(float) * kElements / kRanks * (kRanks - 1));
}

TEST(FakeWorld, RehearsesAJobOfManyRanks) {
  const test::TempDir temp;
  test::make_shapes_dataset(temp / "data", 20, 20);
  const auto config = test::tiny_config(
      (temp / "data").string(),
      {"batch.micro_batches=48", "evaluate.split=holdout", "evaluate.every_steps=2"});
  const size_t before = rehearsal_folders();
  const Rehearsal small = rehearse(config, 2, {});
  const Rehearsal large = rehearse(config, 48, {});
  EXPECT_EQ(rehearsal_folders(), before);
  EXPECT_EQ(large.plan_steps_checked, 3u);
  EXPECT_GT(large.messages, 10 * small.messages);
  EXPECT_LT(large.compute_seconds, small.compute_seconds);
  EXPECT_LT(large.efficiency, small.efficiency);
  EXPECT_GT(large.peak_memory_bytes, 0.5 * large.estimated_memory_bytes);
  EXPECT_EQ(to_json(large)["ranks"], 48);
  // A faster link, less time.
  EXPECT_LT(exchange_seconds(large, {.gbps = 800}), exchange_seconds(large, {.gbps = 100}));
}

TEST(FakeWorld, MoreRanksThanMicroBatches) {
  const test::TempDir temp;
  test::make_shapes_dataset(temp / "data", 20, 20);
  const auto config = test::tiny_config((temp / "data").string());
  try {
    rehearse(config, 9, {});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::kUsage);
    EXPECT_EQ(e.where(), "batch.micro_batches");
  }
}

}  // namespace
}  // namespace nf::train
